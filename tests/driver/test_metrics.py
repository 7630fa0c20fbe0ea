"""Metrics: how far, how many, how long; and nobody is named."""

from __future__ import annotations

import pytest
from driver_world import Attentive, acting
from prometheus_client.parser import text_string_to_metric_families
from transport_worlds import ALICE, make_model

from nevermined_fl.errors import PermissionDenied
from nevermined_fl.messages import JoinRequest


def scraped(world):
    """``name{label,…}`` -> value."""
    families = text_string_to_metric_families(world.driver.scrape().decode())
    samples = [sample for family in families for sample in family.samples]
    return {"/".join((s.name, *s.labels.values())): s.value for s in samples if s.name.startswith("nevermined_fl_")}


async def test_a_session_in_numbers(tmp_path):
    world = Attentive(tmp_path, rounds=3)
    async with acting(world) as actors:
        found = scraped(world)
        assert (found["nevermined_fl_phase/selection"], found["nevermined_fl_participants_present"]) == (1, 0)
        with pytest.raises(PermissionDenied):
            await world.link(ALICE).join(JoinRequest("forged", world.proof(ALICE)))
        actors.begin()
        await world.running
        found = scraped(world)
    expected = {
        "round": 3,
        "phase/finished": 1,
        "phase/selection": 0,
        "participants_present": 2,
        "answers_total/accepted/report": 6,
        "answers_total/accepted/evaluation": 6,
        "refused_requests_total/token_signature": 1,
        "received_bytes_total": 6 * len(make_model(1.0)),
        "round_seconds_count": 3,
        "fold_seconds_count": 3,
        "disk_full": 0,
    }
    assert {name: found[f"nevermined_fl_{name}"] for name in expected} == expected
    assert ALICE[7:] not in world.driver.scrape().decode()


async def test_bytes_that_went_out_whole_are_counted(tmp_path):
    world = Attentive(tmp_path)
    async with acting(world):
        link = await world.joined(ALICE)
        for number in range(2):
            await link.fetch_model(world.plan.initial_model, tmp_path / f"{number}")
        assert scraped(world)["nevermined_fl_sent_bytes_total"] == 2 * len(make_model(1.0))
