"""What is kept: nobody trains twice, although the participant is restarted or the coordinator forgets."""

from __future__ import annotations

import json

from participant_world import END, LOST, PLAN, UPDATE, Script, Trainer, participant, seed, train
from transport_worlds import World, digest

from nevermined_fl.participant.keep import Keep, Kept


async def test_who_is_asked_again_after_a_restart_offers_what_it_kept(tmp_path):
    trainer = Trainer()
    link = Script(PLAN, [train(1), LOST, train(1), END])
    await participant(PLAN, link, trainer, tmp_path).run()
    await participant(PLAN, Script(PLAN, [train(1), END]), trainer, tmp_path).run()
    assert trainer.fits == 1
    assert len(link.joins) == len(set(link.joins)) == 2


async def test_a_kept_update_that_is_damaged_or_of_another_round_is_trained_again(tmp_path):
    trainer = Trainer()
    await participant(PLAN, Script(PLAN, [train(1), END]), trainer, tmp_path).run()
    (tmp_path / "job" / "kept" / f"1-{seed(1)}.update").write_bytes(UPDATE[:-1])
    await participant(PLAN, Script(PLAN, [train(1), END]), trainer, tmp_path).run()
    await participant(PLAN, Script(PLAN, [train(2), END]), trainer, tmp_path).run()
    (tmp_path / "job" / "kept" / "kept.json").write_text("{}")
    await participant(PLAN, Script(PLAN, [train(2), END]), trainer, tmp_path).run()
    assert trainer.fits == 4


async def test_the_same_round_again_is_answered_from_what_is_kept_and_another_attempt_trained(tmp_path):
    trainer, plan = Trainer(), World(tmp_path, repeats=1).plan
    link = Script(plan, [train(1), train(1), train(1, 1), train(1, 1), END])
    await participant(plan, link, trainer, tmp_path).run()
    assert trainer.fits == 2
    assert len([heard for heard in link.heard if isinstance(heard, tuple)]) == 4


async def test_a_coordinator_that_lost_its_newest_model_costs_no_training(tmp_path):
    """It asks one round back, and then for the next one once more."""
    trainer, plan = Trainer(), World(tmp_path, rounds=3).plan
    link = Script(plan, [train(1), train(2), LOST, train(1), train(2), train(3), END])
    await participant(plan, link, trainer, tmp_path).run()
    assert trainer.fits == 3


def kept(number, seed, **digests):
    return Kept(number, digest(UPDATE), seed, digest(UPDATE), 9, {}, **digests)


def keep_all(folder, *rows):
    keep = Keep(folder)
    for row in rows:
        for kind in ("update", "residual", "control"):
            keep.path(row.round, row.seed, kind).write_bytes(UPDATE)
        keep.add(row)
    return keep


def test_the_newest_update_is_kept_and_the_one_of_the_round_before_it(tmp_path):
    rest = {"residual": digest(UPDATE)}
    keep = keep_all(tmp_path, kept(1, 4, **rest), kept(3, 5, **rest), kept(3, 6, **rest), kept(8, 7))
    assert keep.find(1, digest(UPDATE), 4) is keep.find(3, digest(UPDATE), 5) is None
    assert keep.earlier(4) == (keep.find(3, digest(UPDATE), 6),) == (kept(3, 6, **rest),)
    assert keep.earlier(9) == keep.earlier(4)  # round 8 left nothing behind
    assert keep.earlier(3) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3-6.residual", "3-6.update", "8-7.update", "kept.json"]
    assert Keep(tmp_path).find(8, digest(UPDATE), 7) == kept(8, 7)


def test_what_the_next_one_builds_on_stays_until_another_counts(tmp_path):
    rest = {"residual": digest(UPDATE)}
    one, two, three, four = (kept(number, 5, **rest) for number in (1, 2, 3, 4))
    keep = keep_all(tmp_path, one, two)
    keep.note(two, refused=True)
    assert Keep(tmp_path).earlier(3) == keep.earlier(3) == (one,)
    for late in (three, four):
        for kind in ("update", "residual"):
            keep.path(late.round, 5, kind).write_bytes(UPDATE)
        keep.add(late, one)
    assert [row["round"] for row in json.loads((tmp_path / "kept.json").read_text())] == [4, 3, 1]
    assert keep.earlier(5) == (four, three, one)


def test_who_hears_another_word_on_an_update_forgets_those_that_came_after_it(tmp_path):
    """A coordinator that lost a model asked for the round once more, and this time took the update, or not."""
    rest = {"control": digest(UPDATE)}
    for refused in (True, False):
        keep = keep_all(tmp_path / str(refused), kept(1, 5, **rest))
        keep.note(kept(1, 5, **rest), refused=refused)
        first = keep.find(1, digest(UPDATE), 5)
        for kind in ("update", "control"):
            keep.path(2, 6, kind).write_bytes(UPDATE)
        keep.add(kept(2, 6, **rest))
        keep.note(first, refused=refused)
        assert keep.find(2, digest(UPDATE), 6)
        keep.note(first, refused=not refused)
        assert keep.find(2, digest(UPDATE), 6) is None
        assert len(keep.earlier(2)) == refused


def test_what_is_left_behind_is_used_only_whole(tmp_path):
    keep_all(tmp_path, kept(2, 5, residual=digest(UPDATE), control=digest(UPDATE)))
    (tmp_path / "2-5.residual").write_bytes(UPDATE[:-1])
    keep = Keep(tmp_path)
    (basis,) = keep.earlier(3)
    assert keep.left(basis, "residual") is None
    assert keep.left(basis, "control") == tmp_path / "2-5.control"
    assert keep.left(None, "control") is None
