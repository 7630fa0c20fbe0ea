"""A whole embedded network: up, used, and gone without a trace."""

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nevermined_fl.devnet import network
from nevermined_fl.devnet.home import Home
from nevermined_fl.devnet.ports import is_listening
from nevermined_fl.devnet.processes import alive, descendants
from nevermined_fl.devnet.ready import answers
from nevermined_fl.errors import BackendError
from nevermined_fl.marketplace.data_scientist import DataScientist
from nevermined_fl.marketplace.provider import Provider
from nevermined_fl.settings import load_provider

pytestmark = pytest.mark.xdist_group("devnet")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """A network with one data provider, and its state when it was ready."""
    with network.start(tmp_path_factory.mktemp("net") / "home", providers=1) as net:
        yield net, net.wait_ready()


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        os.sched_yield()


def test_a_network_has_contracts_money_and_providers_with_keys_of_their_own(net):
    home, state = net[0].home, net[1]
    assert [entry.name for entry in state.processes] == [
        "chain",
        "metadata",
        "compute-launcher",
        "compute-gateway",
        "provider-1-launcher",
        "provider-1-gateway",
    ]
    assert all(answers(entry.url) for entry in state.processes)
    buyer = DataScientist(home.data_scientist / "key.json", home.network_file)
    sellers = [Provider(entry.home) for entry in state.providers]
    assert buyer.balance() == 1000 * 10**18
    assert len({buyer.address, *(seller.address for seller in sellers)}) == 3
    assert [seller.market.chain.balance(seller.address) for seller in sellers] == [0, 0]
    assert load_provider(state.providers[1].home).policy.buyers == ("*",)


def test_a_server_that_dies_is_started_again(net):
    home, state = net[0].home, net[1]
    before = next(entry for entry in state.processes if entry.name == "provider-1-gateway")
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: [p.pid for p in home.load().processes if p.name == before.name] != [before.pid])
    until(lambda: answers(before.url))
    assert home.load().phase == "ready"


def test_every_server_leads_its_own_process_group_below_the_supervisor(net):
    state = net[0].home.load()
    assert {entry.pid for entry in state.processes} <= set(descendants(state.pid))
    assert all(os.getpgid(entry.pid) == entry.pid for entry in state.processes)


def test_when_whoever_holds_the_tether_is_gone_so_is_the_network(net):
    held, state = net
    before = held.home.load().processes
    held.stop()
    assert not alive(state.pid, state.ticks)
    assert not any(alive(entry.pid, entry.ticks) for entry in before)
    assert not any(is_listening("127.0.0.1", int(entry.url.rsplit(":")[-1].strip("/"))) for entry in before)
    assert held.home.load().phase == "stopped"


class Barren(BaseHTTPRequestHandler):
    """A chain on which nobody has anything."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "insufficient funds"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_network_that_cannot_start_quotes_the_log_of_what_failed(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Barren)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with network.start(tmp_path / "home", providers=1, rpc_url=url) as net:
        with pytest.raises(BackendError, match="genesis ended with code 1") as failed:
            net.wait_ready()
        assert not descendants(net.process.pid)
    server.shutdown()
    server.server_close()
    assert "insufficient funds" in failed.value.message
    assert "Traceback" not in failed.value.message
    assert Home.at(tmp_path / "home").load().phase == "failed"
