"""The command line as a person uses it: whatever ends it, no process and no listening port is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from nevermined_fl.devnet.home import Home
from nevermined_fl.devnet.ports import is_listening
from nevermined_fl.devnet.processes import alive, command_line, descendants, kill_all, start_ticks

# Beside the network of the other tests, so that both cores are used.
pytestmark = pytest.mark.xdist_group("devnet-commands")
COMMAND = (str(Path(sys.executable).with_name("nevermined-fl")),)


@contextmanager
def running(*words, folder):
    """The command as the leader of a group of its own, as a shell starts it; nothing of it outlives the test."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        yield process
    finally:
        kill_all((*descendants(process.pid), process.pid))
        process.communicate()


def finished(*words, folder):
    return subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def until(is_so, what, *, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)
    return found


def tree(pid):
    """All processes below, the process itself included, so that a reused pid is no survivor."""
    return {child: start_ticks(child) for child in (pid, *descendants(pid))}


def survivors(processes):
    return [(pid, command_line(pid)) for pid, ticks in processes.items() if alive(pid, ticks)]


def open_ports(state):
    """Ports of the network that somebody listens on, coordinators' included."""
    urls = [state.rpc_url, state.metadata_url, *(entry.gateway_url() for entry in state.providers)]
    ports = [int(url.rpartition(":")[2]) for url in urls] + [entry.launcher_port for entry in state.providers]
    first, last = state.coordinator_ports
    return [port for port in (*ports, *range(first, last + 1)) if is_listening("127.0.0.1", port)]


def test_ctrl_c_in_the_middle_of_a_session_leaves_no_process_and_no_port(tmp_path):
    home = Home.at(tmp_path / ".nevermined-fl" / "devnet")
    with running("demo", "--json", "--providers", "1", "--rounds", "500", folder=tmp_path) as demo:
        until(lambda: demo.poll() is None and in_a_session(demo.pid), "a session")
        state, processes = home.load(), tree(demo.pid)
        assert len(open_ports(state)) >= 7, "chain, metadata API, 2 gateways, 2 launchers and a coordinator"
        os.killpg(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130
        assert survivors(processes) == []
        assert open_ports(state) == []
        assert json.loads(output)["error"] == "Interrupted"


def in_a_session(pid):
    """Whether a participant's algorithm runs: then its coordinator listens."""
    participants = [child for child in descendants(pid) if "participant_image" in command_line(child)]
    below = {child for participant in participants for child in descendants(participant)}
    return any("nevermined_fl.trainers.host" in command_line(child) for child in below)


def test_a_network_does_not_outlive_a_command_that_was_killed(tmp_path):
    home = Home.at(tmp_path / ".nevermined-fl" / "devnet")
    with running("demo", "--providers", "1", folder=tmp_path) as demo:
        # All its servers are there, and it is about to use them.
        until(lambda: demo.poll() is None and len(home.load().processes) == 6, "a network")
        state, processes = home.load(), tree(demo.pid)
        assert len(processes) >= 8
        demo.kill()
        demo.wait()
        try:
            until(lambda: not survivors(processes), "the end of the network", seconds=20)
            assert open_ports(state) == []
        finally:
            kill_all(tuple(pid for pid, _ in survivors(processes)))


def test_a_network_can_be_brought_up_looked_at_and_taken_down(tmp_path):
    up = finished("devnet", "up", "--providers", "1", "--json", "--home", "net", folder=tmp_path)
    home = Home.at(tmp_path / "net")
    state = home.load()
    processes = tree(state.pid)
    try:
        told = json.loads(up.stdout)
        assert (up.returncode, told["phase"], told["rpc_url"]) == (0, "ready", state.rpc_url)
        status = finished("devnet", "status", "--json", "--home", "net", folder=tmp_path)
        answers = {row["name"]: row["answers"] for row in json.loads(status.stdout)["processes"]}
        servers = [f"{who}-{what}" for who in ("compute", "provider-1") for what in ("gateway", "launcher")]
        assert (status.returncode, answers) == (0, dict.fromkeys(["chain", "metadata", *servers], True))
        again = finished("devnet", "up", "--json", "--home", "net", folder=tmp_path)
        assert (again.returncode, json.loads(again.stdout)["error"]) == (1, "SettingsError")
        down = finished("devnet", "down", "--json", "--home", "net", folder=tmp_path)
        assert (down.returncode, json.loads(down.stdout)["stopped"]) == (0, True)
        assert survivors(processes) == []
        assert open_ports(state) == []
    finally:
        kill_all(tuple(pid for pid, _ in survivors(processes)))
    gone = finished("devnet", "status", "--json", "--home", "net", folder=tmp_path)
    assert (gone.returncode, json.loads(gone.stdout)["phase"]) == (1, "stopped")
    idle = finished("devnet", "down", "--json", "--home", "net", folder=tmp_path)
    assert (idle.returncode, json.loads(idle.stdout)["stopped"]) == (0, False)
