"""Models come whole, or as changes of the ones before them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from participant_world import END, Script, Trainer, participant, train
from transport_worlds import World, digest, make_model

from nevermined_fl import precision
from nevermined_fl.codecs import safetensors
from nevermined_fl.errors import NotFound, RemoteProtocolError
from nevermined_fl.participant.models import Models


class Changed:
    """A link to whoever has one model, and another one as a change of it."""

    def __init__(self, plan, folder):
        folder.mkdir()
        for name, value in (("one", 1.0), ("to", 2.5)):
            (folder / name).write_bytes(make_model(value))
        rest = {"residual_in": None, "residual_out": folder / "rest", "into": folder / "change"}
        words = {"schema": plan.carried(), "precision": plan.precision}
        precision.encode_change(folder / "one", folder / "to", **rest, **words)
        self.second = precision.apply_change(folder / "one", folder / "change", folder / "two", *words.values())
        self.first, self.folder, self.heard = digest(make_model(1.0)), folder, []

    async def fetch_model(self, name, into):
        self.heard.append("whole")
        into.write_bytes((self.folder / ("one" if name == self.first else "two")).read_bytes())

    async def fetch_delta(self, base, name, into):
        self.heard.append("change")
        if not (self.folder / "change").exists():
            raise NotFound("no such change")
        assert (base, name) == (self.first, self.second)
        into.write_bytes((self.folder / "change").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "heard"),
    [
        (lambda raw: raw, ["whole", "change"]),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 3]), ["whole", "change", "whole"]),
        (lambda raw: raw[:-1], ["whole", "change", "whole"]),
        (None, ["whole", "change", "whole"]),
    ],
)
async def test_a_model_is_made_of_the_one_before_it_where_its_digest_comes_out(tmp_path, spoil, heard):
    plan = World(tmp_path, precision="int8").plan
    link = Changed(plan, tmp_path / "there")
    change = tmp_path / "there" / "change"
    if spoil is None:
        change.unlink()
    else:
        change.write_bytes(spoil(change.read_bytes()))
    models = Models(tmp_path / "here", plan, link)

    await models.get(link.first)
    second = await models.get(link.second)

    assert digest(second.read_bytes()) == link.second
    assert link.heard == heard
    assert list((tmp_path / "here").iterdir()) == [second]
    assert await models.get(link.second) == second
    assert link.heard == heard


async def test_a_model_of_another_schema_is_refused(tmp_path):
    plan = World(tmp_path).plan
    link = Changed(World(tmp_path, precision="f16").plan, tmp_path / "there")
    for raw in (make_model(1.0)[:-1], make_model(1.0).replace(b'"w"', b'"v"')):
        (tmp_path / "there" / "one").write_bytes(raw)
        with pytest.raises(RemoteProtocolError):
            await Models(tmp_path / "here", plan, link).get(link.first)
        assert list((tmp_path / "here").iterdir()) == []


def spoilt(value):
    tensors = safetensors.load(make_model(1.0))
    return safetensors.dump(tensors | {"w": np.full_like(tensors["w"], value)})


async def test_a_model_that_is_not_finite_is_the_coordinators_fault(tmp_path):
    """The algorithm would be blamed for what it makes of it, and the participant leave."""
    plan = World(tmp_path).plan

    class Liar(Script):
        async def fetch_model(self, name, into):
            into.write_bytes(spoilt(np.nan) if name == digest(spoilt(np.nan)) else make_model(1.0))

    bad = replace(train(1), model=digest(spoilt(np.nan)))
    trainer = Trainer()
    assert await participant(plan, Liar(plan, [bad, train(1), END]), trainer, tmp_path).run() == END
    lines = [json.loads(line) for line in (tmp_path / "job" / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["joined", "refused", "round_trained", "update_sent", "over"]
    assert lines[1]["code"] == "not_finite"
    assert trainer.fits == 1


async def test_the_first_model_is_read_as_it_came_where_more_travels_beside_it(tmp_path):
    link = Changed(World(tmp_path, precision="f16").plan, tmp_path / "there")
    models = Models(tmp_path / "here", World(tmp_path, strategy="scaffold").plan, link)
    (tmp_path / "there" / "one").write_bytes(spoilt(-np.inf))
    with pytest.raises(RemoteProtocolError, match="not finite"):
        await models.get(link.first)
    (tmp_path / "there" / "one").write_bytes(make_model(1.0))
    assert "control/w" in safetensors.load((await models.get(link.first)).read_bytes())


async def test_a_change_with_a_number_that_is_not_finite_makes_no_model(tmp_path):
    plan = World(tmp_path, precision="bf16").plan
    link = Changed(plan, tmp_path / "there")
    models, change = Models(tmp_path / "here", plan, link), tmp_path / "there" / "change"
    await models.get(link.first)
    change.write_bytes(change.read_bytes()[:-2] + b"\xc0\x7f")
    (tmp_path / "there" / "two").write_bytes(spoilt(np.inf))
    with pytest.raises(RemoteProtocolError) as caught:
        await models.get(link.second)
    assert caught.value.code == "not_finite"
    assert link.heard == ["whole", "change", "whole"]
    assert list((tmp_path / "here").iterdir()) == []
