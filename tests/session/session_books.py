"""What a session ought to be: books kept from its events and effects alone, compared with it at every step."""

import json
import math
from collections import Counter
from fractions import Fraction

from session_world import SESSION

from nevermined_fl.session import Phase, Session, draw, start, step
from nevermined_fl.session.effects import (
    Accept,
    Aggregate,
    AskEvaluation,
    Commit,
    Configure,
    Discard,
    Fail,
    Finish,
    Reject,
)
from nevermined_fl.session.events import Aggregated, Evaluated, Joined, Left, Reported, Restarted, Stopped, Ticked

PEERS = Joined | Left | Reported | Evaluated
REACH = Counter()


class Books:
    """One session and its books; every event goes through ``say``."""

    def begin(self, plan):
        self.plan = plan
        self.now, self.log, self.made = 1000.0, [], 0
        self.started = self.now
        self.session, effects = start(self.plan, SESSION, self.now)
        assert effects == ()
        self.bound = {}  # participant -> the agreement that it first joined under
        self.here = set()  # who joined and did not leave
        self.accepted = {}  # (round, participant) -> the report that counts
        self.evaluated = {}  # the same for evaluations
        self.asked = {}  # round -> everyone who was asked to train
        self.folded = {}  # round -> the Aggregate order
        self.models = {0: self.plan.initial_model}  # round -> what the driver wrote
        self.commits, self.ends = [], []

    def say(self, said):
        before = self.session
        self.session, effects = step(before, said, self.now)
        self.log.append((self.now, said))
        assert step(before, said, self.now) == (self.session, effects), "equal inputs give equal effects"
        self.check_answer(before, said, effects)
        for effect in effects:
            self.check_effect(before, said, effect)
        if before.is_over():
            assert self.session == before, "terminal phases never change"
        if isinstance(said, Aggregated) and not before.is_over():
            gone = [(effect.participant, effect.update) for effect in effects if isinstance(effect, Discard)]
            assert gone == [row[:2] for row in self.folded[said.round].updates], "folded updates may go"
        self.check_deadline(before, said)
        self.check_ends_and_beginnings(before, said)
        if (before.phase, before.round) != (self.session.phase, self.session.round):
            for session in (before, self.session):
                assert Session.from_json(json.loads(json.dumps(session.to_json()))) == session

    def check_answer(self, before, said, effects):
        """A peer hears exactly one verdict, first; a refused event changes nothing."""
        verdicts = [effect for effect in effects if isinstance(effect, Accept | Reject)]
        if not isinstance(said, PEERS):
            assert verdicts == []
            return
        (verdict,) = verdicts
        assert verdict == effects[0]
        assert verdict.participant == said.participant
        if isinstance(verdict, Reject):
            REACH[f"refused {verdict.code}"] += 1
            assert not self.counts_already(before, said), "who did not hear the verdict may ask again"
            assert self.session == before
            assert all(isinstance(effect, Discard) for effect in effects[1:])
            assert verdict.code != "other_agreement" or not self.may_join(said)
        elif isinstance(said, Joined):
            assert self.may_join(said), "one participant per agreement, one agreement per participant"
            self.bound[said.participant] = said.agreement
            self.here.add(said.participant)
        elif isinstance(said, Left):
            self.here.remove(said.participant)
        elif isinstance(said, Reported | Evaluated):
            self.count(before, said)

    def may_join(self, said):
        others = [bound for participant, bound in self.bound.items() if participant != said.participant]
        known = said.participant in self.plan.members
        return known and said.agreement not in others and self.bound.get(said.participant) in (None, said.agreement)

    def counts_already(self, before, said):
        book = {Reported: self.accepted, Evaluated: self.evaluated}.get(type(said), {})
        known = book.get((said.round, said.participant)) if book else None
        return known == said and said.participant in self.here and not before.is_over()

    def count(self, before, said):
        book, phase = (
            (self.accepted, Phase.REPORTING) if isinstance(said, Reported) else (self.evaluated, Phase.EVALUATION)
        )
        key = (said.round, said.participant)
        if key in book:
            assert book[key] == said, "only the same answer is accepted again"
            assert self.session == before
            REACH["repeats"] += 1
            return
        book[key] = said
        assert (before.phase, before.round) == (phase, said.round)
        assert said.participant in self.asked[said.round]
        assert said.examples > 0
        assert set(said.metrics) <= {metric.name for metric in self.plan.metrics}
        assert 0.0 <= said.metrics.get("accuracy", 0.0) <= 1.0
        about = said.round - 1 if isinstance(said, Reported) else said.round
        assert said.model == self.models[about]

    def check_effect(self, before, said, effect):
        again = isinstance(said, Restarted)
        match effect:
            case Configure():
                self.check_configure(said, effect)
            case Aggregate():
                assert again or effect.round not in self.folded, "each round is aggregated once"
                assert self.folded.setdefault(effect.round, effect) == effect
                self.check_fold(effect)
            case AskEvaluation():
                assert effect.model == self.models[effect.round]
                assert set(effect.cohort) <= set(self.asked[effect.round])
                assert effect.cohort == ((said.participant,) if isinstance(said, Joined) else self.session.waits_for())
            case Discard():
                self.check_discard(before, said, effect)
            case Commit():
                if again:
                    assert effect == self.commits[-1]
                    return
                self.commits.append(effect)
                assert effect.round == len(self.commits)
                assert effect.model == self.models[effect.round]
                assert effect.metrics == self.mean(effect.round)
            case Finish():
                assert effect.model == self.commits[-1].model
                assert len(self.commits) == self.plan.rounds
                self.ends.append(effect)
            case Fail():
                self.ends.append(effect)
                REACH[
                    f"failed: {effect.reason.split(':')[-2 if ':' in effect.reason else -1].strip()[:20]}"
                ] += not again

    def check_configure(self, said, effect):
        assert effect.round == len(self.commits) + 1
        assert effect.model == self.models[effect.round - 1], "a round trains the model of the round before"
        assert effect.model == (self.commits[-1].model if self.commits else self.plan.initial_model)
        assert effect.deadline == self.session.deadline
        assert effect.seeds == tuple(draw.training_seed(self.plan, effect.round, p) for p in effect.cohort)
        if effect.round not in self.asked:
            self.asked[effect.round] = effect.cohort
            self.check_cohort(effect.cohort)
        elif isinstance(said, Joined):
            assert effect.cohort == (said.participant,), "who comes back is asked again, alone"
        assert set(effect.cohort) <= set(self.asked[effect.round])

    def check_ends_and_beginnings(self, before, said):
        """Selection ends when all are there or enough at the deadline; a session fails when there are too few."""
        time_is_up = isinstance(said, Ticked) and before.deadline is not None and self.now >= before.deadline
        came = len(before.updates) if before.phase is Phase.REPORTING else len(self.here)
        enough = came >= self.plan.min_participants
        if before.phase is Phase.SELECTION and self.session.round == 1:
            assert self.here == set(self.plan.members) or (time_is_up and enough)
        if not before.is_over():
            failed = isinstance(said, Stopped) or (time_is_up and not enough and before.phase is not Phase.EVALUATION)
            assert (self.session.phase is Phase.FAILED) == failed

    def check_cohort(self, cohort):
        present = self.session.present()
        wanted = max(math.ceil(Fraction(str(self.plan.participants_ratio)) * len(present)), self.plan.min_participants)
        assert len(cohort) == wanted
        assert list(cohort) == sorted(set(cohort) & set(present)), "nobody is asked twice"

    def check_fold(self, effect):
        names = [participant for participant, _, _ in effect.updates]
        assert names == sorted(set(names)), "nobody counts twice, and arrival leaves no trace"
        assert len(names) >= self.plan.min_participants
        assert effect.model_before == self.models[effect.round - 1]
        expected = {p: report for (number, p), report in self.accepted.items() if number == effect.round}
        assert set(names) == set(expected), "every accepted update counts"
        for participant, update, weight in effect.updates:
            assert (update, weight) == (expected[participant].update, min(expected[participant].examples, 100))

    def check_discard(self, before, said, effect):
        counted = self.accepted.get((effect.round, effect.participant))
        if counted and counted.update == effect.update:
            assert effect.round in self.models or self.session.phase is Phase.FAILED, "folded before it is deleted"
        else:
            assert isinstance(said, Reported)
            assert (effect.participant, effect.update) == (said.participant, said.update)

    def mean(self, number):
        sums = {}
        for (_, _), said in sorted((key, said) for key, said in self.evaluated.items() if key[0] == number):
            for name, value in said.metrics.items():
                total, weight = sums.get(name, (0.0, 0))
                sums[name] = (total + min(said.examples, 100) * round(value, 3), weight + min(said.examples, 100))
        return {name: total / weight for name, (total, weight) in sums.items()}

    def check_deadline(self, before, said):
        """A phase's clock is set once; only a restart sets it anew."""
        ours = self.session
        assert (ours.deadline is None) == (ours.is_over() or ours.phase is Phase.AGGREGATION)
        together = {ours.phase, before.phase} <= {Phase.CONFIGURATION, Phase.REPORTING}
        same = ours.round == before.round and (ours.phase is before.phase or together)
        if isinstance(said, Restarted) or not same:
            length = self.plan.selection_timeout if ours.phase is Phase.SELECTION else self.plan.round_timeout
            assert ours.deadline in (None, self.now + length)
        else:
            assert ours.deadline == before.deadline
        if isinstance(said, Ticked) and before.deadline is not None:
            assert (self.now >= before.deadline) == (ours != before), "time is up exactly at the deadline"
