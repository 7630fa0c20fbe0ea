"""Seeing processes, their sockets and their end from outside."""

import os
import signal
import socket
import subprocess
import sys

from nevermined_fl.devnet.ports import free_ports, is_listening
from nevermined_fl.devnet.processes import alive, command_line, descendants, kill_all, listening_sockets, start_ticks
from nevermined_fl.devnet.watch import ParticipantWatch

LISTENER = """
import socket, subprocess, sys
held = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6)]
open_ = socket.create_connection(held[0].getsockname())
child = subprocess.Popen([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"])
child.wait()
"""


def listener(*words):
    process = subprocess.Popen([sys.executable, "-c", LISTENER, *words], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_tree_is_seen_with_its_listening_sockets_and_its_end():
    process = listener("participant_image")
    ticks = start_ticks(process.pid)
    below = descendants(process.pid)
    try:
        assert process.pid in descendants(os.getpid())
        assert len(below) == 1
        assert command_line(process.pid)[-1] == "participant_image"
        assert listening_sockets(process.pid) == 2
        assert [listening_sockets(pid) for pid in below] == [0]
        assert alive(process.pid, ticks)
        assert not alive(process.pid, ticks + 1)
    finally:
        kill_all((process.pid, *below))
        process.wait()
        process.stdout.close()
    assert not alive(process.pid, ticks)
    assert start_ticks(process.pid) == 0


def test_the_watch_counts_what_participants_listen_on_and_nobody_else():
    processes = [listener("participant_image"), listener("coordinator_image")]
    try:
        with ParticipantWatch(os.getpid()) as watch:
            while not watch.seen:
                os.sched_yield()
        assert (watch.seen, watch.listening) == (2, 2)
    finally:
        for process in processes:
            kill_all((process.pid, *descendants(process.pid)))
            process.wait()
            process.stdout.close()


def test_free_ports_are_a_run_that_nobody_listens_on():
    ports = free_ports(7)
    assert list(ports) == list(range(ports[0], ports[0] + 7))
    assert not any(is_listening("127.0.0.1", port) for port in ports)
    with socket.create_server(("127.0.0.1", ports[3])):
        assert is_listening("127.0.0.1", ports[3])


def test_a_process_that_ignores_sigterm_is_killed_all_the_same():
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    kill_all((process.pid, 2**22 + 1))
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
