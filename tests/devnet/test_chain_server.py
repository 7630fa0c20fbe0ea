"""The embedded chain as a process: what clients get from it, and what becomes of them when it stops for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from chain_fixtures import chain_process, free_port, rpc

from nevermined_fl.errors import ChainError, LocalProtocolError
from nevermined_fl.keys import KeyAccount

pytestmark = pytest.mark.xdist_group("chain")

RICH = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
NOBODY = "0x" + "00" * 20


@pytest.fixture(scope="module")
def node_process():
    """A chain that mines all by itself, five blocks a second."""
    port = free_port()
    command = [sys.executable, "-m", "nevermined_fl.devnet.chain", "--port", str(port), "--block-time", "0.2"]
    with chain_process(command, port) as found:
        yield found


@pytest.fixture(scope="module")
def url(node_process):
    return node_process[1]


def height(url):
    return int(rpc(url, "eth_blockNumber")["result"], 16)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.05)


def transfer(account, nonce, value=1, **changes):
    from eth_account import Account  # noqa: PLC0415  as slow as web3

    fields = {"to": NOBODY, "value": value, "nonce": nonce, "gas": 30000, "gasPrice": 3 * 10**9, "chainId": 31337}
    return "0x" + bytes(Account.sign_transaction(fields | changes, account.secret).raw_transaction).hex()


# --- what clients get --------------------------------------------------------------------------------------------


def test_an_idle_chain_keeps_mining(url):
    start, began = height(url), time.monotonic()
    wait_until(lambda: height(url) >= start + 3)
    assert time.monotonic() - began > 0.4  # and not as fast as it can


def test_a_batch_is_answered_in_its_order_and_an_odd_request_spoils_no_other(url):
    batch = [
        {"jsonrpc": "2.0", "id": 5, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 6, "method": "eth_nonsense", "params": []},
        7,
        {"jsonrpc": "2.0", "id": 8, "method": "net_version", "params": []},
    ]
    first, second, third, fourth = requests.post(url, json=batch, timeout=30).json()
    assert (first["id"], first["result"]) == (5, "0x7a69")
    assert (second["id"], second["error"]["code"]) == (6, -32601)
    assert third["error"]["code"] == -32600
    assert (fourth["id"], fourth["result"]) == (8, "31337")  # clients sign with either


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_said_to_be_none(url, body):
    assert requests.post(url, data=body, timeout=30).json()["error"]["code"] == -32700


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("eth_call", []),
        ("eth_call", [{"to": "zz"}]),
        ("eth_call", ["text"]),
        ("eth_getBalance", [7]),
        ("eth_getLogs", [[]]),
        ("eth_getBlockByNumber", ["soon"]),
        ("eth_sendRawTransaction", ["0x00ff"]),
        ("eth_sendRawTransaction", [None]),
        ("eth_getTransactionReceipt", [{}]),
    ],
)
def test_bad_parameters_are_an_error_object_and_the_chain_lives_on(url, method, parameters):
    error = rpc(url, method, *parameters)["error"]
    assert isinstance(error["code"], int)
    assert isinstance(error["message"], str)
    assert height(url) > 0


def test_parameters_by_name_are_refused(url):
    body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": {"address": RICH}}
    assert requests.post(url, json=body, timeout=30).json()["error"]["code"] == -32602


def test_a_transaction_is_mined_before_its_answer(url):
    from nevermined_fl.devnet.contracts import development_owner  # noqa: PLC0415  as slow as web3

    owner = development_owner()
    assert owner.address == RICH
    nonce = int(rpc(url, "eth_getTransactionCount", RICH, "pending")["result"], 16)
    before = int(rpc(url, "eth_getBalance", NOBODY, "latest")["result"], 16)
    raw = transfer(owner, nonce, value=5)
    digest = rpc(url, "eth_sendRawTransaction", raw)["result"]
    receipt = rpc(url, "eth_getTransactionReceipt", digest)["result"]
    assert (receipt["status"], receipt["from"], receipt["logs"]) == ("0x1", RICH.lower(), [])
    assert int(rpc(url, "eth_getBalance", NOBODY, "latest")["result"], 16) >= before + 5
    found = rpc(url, "eth_getTransactionByHash", digest)["result"]
    assert (found["hash"], found["value"], found["blockNumber"]) == (digest, "0x5", receipt["blockNumber"])
    block = rpc(url, "eth_getBlockByNumber", receipt["blockNumber"], False)["result"]
    assert block["transactions"] == [digest]
    assert rpc(url, "eth_getBlockByHash", block["hash"], False)["result"]["number"] == receipt["blockNumber"]
    # what geth says of a nonce that is used up, of one to come, and of who has nothing
    assert "nonce too low" in rpc(url, "eth_sendRawTransaction", raw)["error"]["message"]
    assert "nonce too high" in rpc(url, "eth_sendRawTransaction", transfer(owner, nonce + 9))["error"]["message"]
    poor = rpc(url, "eth_sendRawTransaction", transfer(KeyAccount.create(), 0))["error"]["message"]
    assert "insufficient funds" in poor


def test_what_is_not_there_is_null(url):
    nothing = "0x" + "00" * 32
    for method, parameters in (
        ("eth_getTransactionReceipt", [nothing]),
        ("eth_getTransactionByHash", [nothing]),
        ("eth_getBlockByHash", [nothing, False]),
        ("eth_getBlockByNumber", ["0xffffff", False]),
    ):
        assert rpc(url, method, *parameters) == {"jsonrpc": "2.0", "id": 7, "result": None}


def test_many_clients_at_once_each_get_their_own_answer(url):
    addresses = [RICH, NOBODY, KeyAccount.create().address] * 10

    def ask(address):
        return int(rpc(url, "eth_getBalance", address, "latest")["result"], 16) > 10**20

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, addresses)) == [True, False, False] * 10


def test_a_revert_carries_reason_and_data_so_that_web3_knows_it_for_one(chain_network):
    from web3 import HTTPProvider, Web3  # noqa: PLC0415  slow
    from web3.exceptions import ContractLogicError  # noqa: PLC0415

    from nevermined_fl.chain.contracts import load_artifact  # noqa: PLC0415

    registry = Web3(HTTPProvider(chain_network.rpc_url)).eth.contract(
        address=chain_network.contracts["DIDRegistry"], abi=list(load_artifact("DIDRegistry").abi)
    )
    refused = registry.functions.transferDIDOwnership(bytes(32), RICH)
    for attempt in (refused.call, refused.estimate_gas):
        with pytest.raises(ContractLogicError, match="Only owner") as caught:
            attempt({"from": RICH})
        assert caught.value.data.startswith("0x08c379a0")


# --- a client whose chain is in trouble --------------------------------------------------------------------------


def test_it_says_where_it_listens_and_sigterm_stops_it_at_once_even_while_it_works():
    command = [sys.executable, "-m", "nevermined_fl.devnet.chain", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        assert said.startswith("listening on http://127.0.0.1:")
        url = said.split()[-1]
        work = threading.Thread(target=mine_much, args=(url,))
        work.start()
        wait_until(work.is_alive)
        process.terminate()
        assert process.wait(5) == 0
        work.join()
    with pytest.raises(requests.ConnectionError):
        rpc(url, "eth_chainId")


def mine_much(url):
    try:
        rpc(url, "anvil_mine", "0x5000")
    except requests.RequestException:
        return


def test_a_chain_that_stops_for_a_while_is_waited_for(node_process):
    from nevermined_fl.chain.node import Node  # noqa: PLC0415  slow

    process, url = node_process
    # Answers are given up after 0.3 s here, so that a stop of 1.5 s is what 50 s are to the default.
    node = Node(url, timeout=0.3, patience=60)
    os.kill(process.pid, signal.SIGSTOP)
    waking = threading.Timer(1.5, os.kill, (process.pid, signal.SIGCONT))
    began = time.monotonic()
    waking.start()
    assert node.ask("block", lambda: node.web3.eth.block_number) > 0
    assert time.monotonic() - began >= 1.4


def test_a_transaction_sent_into_the_silence_is_mined_once(chain_network, funded):
    """The node takes a transaction and its answer is lost: it is sent again, and neither lost nor doubled."""
    from nevermined_fl.chain import connect  # noqa: PLC0415  slow

    chain, account = connect(chain_network), funded()
    node, sender = chain.node, account
    raw = bytes.fromhex(transfer(sender, 0, value=3)[2:])
    from nevermined_fl.keys import keccak  # noqa: PLC0415

    digest = keccak(raw)
    assert node._submit("transfer", raw, digest)
    assert node._submit("transfer", raw, digest)  # its own nonce is taken, by itself
    rival = bytes.fromhex(transfer(sender, 0, value=4)[2:])
    assert not node._submit("transfer", rival, keccak(rival))  # by another: sign anew
    assert node.web3.eth.get_transaction_count(sender.address) == 1


def test_silence_beyond_patience_is_an_error_that_says_whom_to_look_at():
    from nevermined_fl.chain.node import Node  # noqa: PLC0415  slow

    node = Node(f"http://127.0.0.1:{free_port()}", patience=0.2)
    with pytest.raises(ChainError, match="did not answer") as caught:
        node.ask("block", lambda: node.web3.eth.block_number)
    assert not caught.value.reverted
    assert caught.value.hint


def test_another_chain_is_never_signed_for(chain_network, funded):
    from dataclasses import replace  # noqa: PLC0415

    from nevermined_fl.chain import connect  # noqa: PLC0415  slow

    chain = connect(replace(chain_network, chain_id=1))
    with pytest.raises(ChainError, match="is chain 31337, not 1"):
        chain.register(funded(), seed="0x" + "01" * 32, checksum="0x" + "02" * 32, url="http://x")


def test_contracts_that_are_elsewhere_are_missed_in_words(chain_network):
    from dataclasses import replace  # noqa: PLC0415

    from nevermined_fl.chain import connect  # noqa: PLC0415  slow

    nowhere = replace(chain_network, contracts=dict.fromkeys(chain_network.contracts, NOBODY))
    with pytest.raises(ChainError, match="no such contract"):
        connect(nowhere).balance(RICH)


def test_who_has_no_ether_is_told_so(chain_network):
    from nevermined_fl.chain import connect  # noqa: PLC0415  slow

    with pytest.raises(ChainError) as caught:
        connect(chain_network).register(
            KeyAccount.create(), seed="0x" + "01" * 32, checksum="0x" + "02" * 32, url="http://x"
        )
    assert "ether" in caught.value.hint
    assert not caught.value.reverted


def test_an_account_that_cannot_sign_is_our_mistake(chain_network):
    from nevermined_fl.chain import connect  # noqa: PLC0415  slow

    class Watcher:
        address = RICH

    with pytest.raises(LocalProtocolError):
        connect(chain_network).register(Watcher(), seed="0x" + "01" * 32, checksum="0x" + "02" * 32, url="http://x")


# --- starting it -------------------------------------------------------------------------------------------------


def test_anvil_is_taken_where_it_is_found(tmp_path, monkeypatch):
    from nevermined_fl.devnet.chain import chain_command  # noqa: PLC0415

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert chain_command(8545)[1:3] == ["-m", "nevermined_fl.devnet.chain"]
    binary = tmp_path / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    assert chain_command(8545)[1:3] == ["-m", "nevermined_fl.devnet.chain"]  # not executable
    binary.chmod(0o755)
    assert chain_command(8545)[:5] == [str(binary), "--host", "127.0.0.1", "--port", "8545"]
    assert "--mixed-mining" in chain_command(8545)
    assert "--mixed-mining" not in chain_command(8545, block_time=0)
    assert chain_command(8545, anvil=False)[0] == sys.executable
