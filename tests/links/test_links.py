"""Bad networks: the round completes, and what came through is not sent again."""

from __future__ import annotations

import json
import math

from forks import wait_any
from soak_world import Ground, Roads, World
from strangers import COUNT, Strangers
from wires import ConnectProxy, Wire, told

from nevermined_fl.codecs import safetensors

HOME, DOOR, PROXY = "10.77.0.1", 8443, 3128
MEGABIT = 125_000


def make_world(tmp_path, roads, *, rows, rounds=1, kind="float", **changes):
    ground = Ground.make(tmp_path / "ground", kind, rows=rows, rounds=rounds, round_timeout=170.0, **changes)
    return World(ground, tmp_path / "world", 0, roads)


def across(networks, **more):
    """Participants abroad, the coordinator at home."""
    return Roads(**({"host": HOME, "port": DOOR, "home": networks.home.enter, "abroad": networks.abroad.enter} | more))


def conduct(world, meanwhile=None):
    """A whole session; ``meanwhile`` is told to when all run."""
    with world.all_ended():
        coordinator = world.coordinator()
        participants = world.participants()
        if meanwhile is not None:
            meanwhile(world)
        world.finish(coordinator, world.coordinator, seconds=150)
        world.await_all(participants)
    world.judge(world.outcome())
    return world


def await_line(world, log, event):
    """Wait until a wire has told something."""
    while not any(line["event"] == event for line in told(log)):
        wait_any(world.processes, 0.02)


def tell(record_property, name, sent, needed):
    """For the end of the run: how much was sent for what was needed."""
    record_property(
        "reach", json.dumps({"link": name, "sent": sent, "needed": needed, "ratio": round(sent / needed, 3)})
    )


def update_size(world):
    return safetensors.file_size(world.ground.plan.schema)


def test_two_packets_in_a_hundred_are_lost(networks, tmp_path):
    for network in (networks.home, networks.abroad):
        network.lose(2)
    conduct(make_world(tmp_path, across(networks), rows=20_000, rounds=2))
    # A few megabytes each way, in packets of at most 64 KiB.
    assert networks.home.dropped() + networks.abroad.dropped() > 5


def test_every_answer_takes_two_fifths_of_a_second(tmp_path):
    """200 ms each way, through a wire that delays; no network of one's own is needed."""
    world = make_world(tmp_path, Roads(), rows=10_000)
    log, port = tmp_path / "wire.jsonl", world.port + 1
    world.roads = Roads(door=("127.0.0.1", port))
    with world.all_ended():
        world.helper(Wire(("127.0.0.1", port), ("127.0.0.1", world.port), log, delay=0.2).run, "wire.log")
        await_line(world, log, "open")
        conduct(world)
    assert told(log)[-1]["sent"] > 3 * update_size(world)


def test_an_uplink_of_one_megabit(networks, tmp_path, record_property):
    networks.abroad.narrow("1mbit")
    world = conduct(make_world(tmp_path, across(networks), rows=1000))
    size = 3 * update_size(world)
    tell(record_property, "1 Mbit/s uplink", networks.abroad.sent(), size)
    assert size < networks.abroad.sent() < 1.25 * size + 60_000


def test_a_line_that_is_dead_for_ten_seconds(networks, tmp_path, record_property):
    """In the middle of the uploads nothing comes through and nobody is told; then it goes on."""
    networks.abroad.narrow("1mbit")
    world = make_world(tmp_path, across(networks), rows=1500)

    def cut(world):
        while networks.abroad.sent() < update_size(world):
            wait_any(world.processes, 0.02)
        networks.abroad.unplug()
        wait_any(world.processes, 10.0)
        networks.abroad.plug()

    conduct(world, cut)
    size = 3 * update_size(world)
    tell(record_property, "line dead for 10 s", networks.abroad.sent(), size)
    assert size < networks.abroad.sent() < 1.35 * size + 60_000


def test_connections_that_break_and_cannot_be_had_for_ten_seconds(tmp_path, record_property):
    """An upload goes on where the coordinator had got to."""
    world = make_world(tmp_path, Roads(), rows=50_000)
    log, port, size = tmp_path / "wire.jsonl", world.port + 1, update_size(world)
    world.roads = Roads(door=("127.0.0.1", port))
    wire = Wire(("127.0.0.1", port), ("127.0.0.1", world.port), log, cut_after=math.floor(1.6 * size), cut=10.0)
    with world.all_ended():
        world.helper(wire.run, "wire.log")
        await_line(world, log, "open")
        conduct(world)
    assert [line["event"] for line in told(log) if line["event"] != "sent"] == ["open", "cut", "mended"]
    # Sent anew it would be 4.6 times the size. What was on its way when the line broke is lost: three sockets' buffers.
    sent = told(log)[-1]["sent"]
    tell(record_property, "connections cut", sent, 3 * size)
    assert 3 * size < sent < 3.6 * size


def test_outbound_through_a_connect_proxy_alone(networks, tmp_path):
    """Whatever does not go to the proxy is dropped, and the proxy allows port 443 alone."""
    networks.abroad.rules(
        "chain out { type filter hook output priority 0; policy drop\n"
        f'oifname "lo" accept\n ip daddr {HOME} tcp dport {PROXY} accept\n counter drop\n }}'
    )
    log = tmp_path / "proxy.jsonl"
    world = make_world(tmp_path, across(networks, port=443, proxy=f"http://{HOME}:{PROXY}"), rows=1000, rounds=2)

    def proxy():
        networks.home.enter()
        ConnectProxy((HOME, PROXY), log).run()

    with world.all_ended():
        world.helper(proxy, "proxy.log")
        await_line(world, log, "open")
        conduct(world)
    asked = [line for line in told(log) if line["event"] == "asked"]
    assert {(line["method"], line["target"], line["allowed"]) for line in asked} == {("CONNECT", f"{HOME}:443", True)}
    assert len(asked) >= 3


def test_two_hundred_hostile_connections_do_not_stop_a_round(tmp_path):
    """They are there before the first participant and until after the last round."""
    world = make_world(tmp_path, Roads(), rows=1000, rounds=3)
    log = tmp_path / "strangers.jsonl"
    with world.all_ended():
        coordinator = world.coordinator()
        strangers = world.helper(Strangers(("127.0.0.1", world.port), log).run, "strangers.log")
        await_line(world, log, "all in")
        participants = world.participants()
        world.finish(coordinator, world.coordinator, seconds=100)
        world.await_all(participants)
        assert strangers.wait(0) is None, world.tail()
    world.judge(world.outcome())
    assert told(log) == [{"event": "all in", "sent": COUNT}]
