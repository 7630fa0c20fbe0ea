"""The state of a network on disk."""

import os
import stat

import pytest

from nevermined_fl.devnet import network
from nevermined_fl.devnet.home import Home, ProcessEntry, ProviderEntry, State
from nevermined_fl.devnet.plan import plan_network, plan_servers
from nevermined_fl.devnet.processes import start_ticks
from nevermined_fl.errors import SettingsError


def running(**changes):
    own = {"pid": os.getpid(), "ticks": start_ticks(os.getpid())}
    entry = ProcessEntry("chain", 1, 2, "http://127.0.0.1:1", "chain.log")
    provider = ProviderEntry("provider-1", "data", "providers/provider-1", 5, 6)
    return State("ready", processes=(entry,), providers=(provider,), coordinator_ports=(7, 9), **own | changes)


def test_a_state_is_read_as_it_was_written(tmp_path):
    home = Home.at(tmp_path)
    assert home.load() == State("stopped")
    home.save(running())
    assert home.load() == running()
    assert home.load().provider("provider-1").gateway_url() == "http://127.0.0.1:5"
    assert stat.S_IMODE(home.state_file.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="no provider 'x' in this network; there are provider-1"):
        home.load().provider("x")


def test_a_network_whose_supervisor_is_gone_is_stopped_even_when_its_pid_lives_on(tmp_path):
    home = Home.at(tmp_path)
    home.save(running(ticks=start_ticks(os.getpid()) + 1))
    assert home.load().phase == "stopped"
    assert not network.down(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"phase": "ready"}', '{"phase": "ready", "processes": 3}'])
def test_a_damaged_state_says_what_to_do(tmp_path, text):
    home = Home.at(tmp_path)
    home.state_file.write_text(text)
    with pytest.raises(SettingsError, match="is damaged") as refused:
        home.load()
    assert "start anew" in refused.value.hint


def test_a_network_is_not_started_over_another_or_over_somebody_s_files(tmp_path):
    Home.at(tmp_path).save(running())
    with pytest.raises(SettingsError, match="a network runs in") as refused:
        network.start(tmp_path)
    assert "devnet down" in refused.value.hint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty and holds no network"):
        network.start(tmp_path / "mine")
    with pytest.raises(SettingsError, match="at least one data provider"):
        network.start(tmp_path / "new", providers=0)


def test_every_process_gets_a_port_of_its_own(tmp_path):
    home = Home.at(tmp_path)
    state = plan_network(home, providers=3)
    servers = plan_servers(home, state, embedded_chain=True)
    urls = [child.url for child in (*servers.shared, *servers.providers)]
    assert len(urls) == len(set(urls)) == 2 + 2 * 4
    assert [entry.kind for entry in state.providers] == ["compute", "data", "data", "data"]
    assert not any(child.restart for child in servers.shared if child.name == "chain")
    first, last = state.coordinator_ports
    assert last - first >= 10
    foreign = plan_network(home, providers=1, rpc_url="http://127.0.0.1:8545")
    names = [child.name for child in plan_servers(home, foreign, embedded_chain=False).shared]
    assert (foreign.rpc_url, names) == ("http://127.0.0.1:8545", ["metadata"])
