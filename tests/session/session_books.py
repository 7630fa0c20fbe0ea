"""What a session ought to be: books kept from its events and effects alone, compared with it at every step."""

import json
from collections import Counter

import session_oracles as oracle
from session_world import SESSION, digest

from nevermined_fl.session import Phase, snapshot, start, step
from nevermined_fl.session.effects import (
    Accept,
    Adopt,
    Aggregate,
    AskEvaluation,
    AskInitialModel,
    Commit,
    Configure,
    Discard,
    Fail,
    Finish,
    Reject,
)
from nevermined_fl.session.events import (
    Adopted,
    Aggregated,
    Evaluated,
    Joined,
    Left,
    Lost,
    Reported,
    Restarted,
    RolledBack,
    Stopped,
    Ticked,
)
from nevermined_fl.session.ledger import contributions

PEERS = Joined | Left | Reported | Evaluated
ASKS = Configure | AskEvaluation | AskInitialModel
REACH = Counter()
SEEN = set()  # (phase, event) that was said, and (phase, phase) that followed


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
        self.cohorts = {}  # round -> everyone who was asked to train, a set for each attempt
        self.targets = {}  # round -> how many updates are enough
        self.tried = []  # who was asked for the initial model
        self.attempt = 0
        self.folded = {}  # round -> the Aggregate order
        # round -> what the driver wrote
        self.models = {} if plan.initial_model == "participant" else {0: plan.initial_model}
        self.commits, self.ends = [], []

    def say(self, said):
        before = self.session
        self.session, effects = step(before, said, self.now)
        self.log.append((self.now, said))
        assert step(before, said, self.now) == (self.session, effects), "equal inputs give equal effects"
        SEEN.add((before.phase, type(said)))
        self.is_up = isinstance(said, Ticked) and before.deadline is not None and self.now >= before.deadline
        self.check_answer(before, said, effects)
        self.check_attempt(before, said, effects)
        self.check_repairs(before, said, effects)
        self.tried_before = set(self.tried)
        for effect in effects:
            self.check_effect(before, said, effect)
        if before.is_over() and not (before.phase is Phase.FINISHED and isinstance(said, RolledBack)):
            assert self.session == before, "terminal phases never change"
        self.check_discards(before, said, effects)
        self.check_turn(before, said, effects)
        self.check_ordered(before, said, effects)
        self.check_deadline(before, said)
        self.check_ends_and_beginnings(before, said)
        self.check_always()
        self.check_who_owes()
        if (before.phase, before.round) != (self.session.phase, self.session.round):
            SEEN.add((before.phase, self.session.phase))
            if len(self.log) % 4 == 0:
                assert snapshot.from_json(json.loads(json.dumps(snapshot.to_json(self.session)))) == self.session

    # --- what must always hold ---

    def check_always(self):
        ours, owing = self.session, self.session.waits_for()
        assert bool(self.ends) == ours.is_over(), "it ends once and says so"
        assert len(set(self.ends)) <= 1
        if ours.phase is Phase.REPORTING:
            assert len(ours.updates) < self.targets[ours.round]
            assert owing or len(ours.updates) < self.plan.min_participants
        if ours.phase is Phase.EVALUATION:
            assert owing
            assert len(ours.evaluations) < self.targets[ours.round]
        if ours.phase is Phase.CONFIGURATION:
            assert len(self.here | self.given(ours.round)) < self.plan.min_participants
        if ours.phase is Phase.INITIALIZATION:
            assert bool(owing) != bool(ours.updates)
        assert ours.model == (self.models[max(self.models)] if self.models else "")
        assert {member.participant: member.agreement for member in ours.members} == self.bound
        assert ours.present() == tuple(sorted(self.here))
        assert [(done.number, done.model) for done in ours.history] == [(c.round, c.model) for c in self.commits]
        folded = [row for number in range(1, len(self.commits) + 1) for row in self.folded[number].updates]
        assert sum(len(row.rounds) for row in contributions(ours)) == len(folded)

    def check_who_owes(self):
        """Who was asked, is there and did not answer; that one may upload, and so may who is late and used."""
        ours, owing = self.session, set()
        if ours.phase is Phase.INITIALIZATION:
            owing = {self.tried[-1]} - self.given(0)
        if ours.phase is Phase.REPORTING:
            owing = self.cohorts[ours.round][-1] - self.given(ours.round)
        if ours.phase is Phase.EVALUATION:
            owing = self.cohorts[ours.round][-1] - {one for about, one in self.evaluated if about == ours.round}
        assert ours.waits_for() == tuple(sorted(owing & self.here))
        assert ours.is_waiting() == bool(ours.waits_for())
        assert tuple(one for one in sorted(self.plan.members) if ours.owes(one)) == ours.waits_for()
        for participant, about in zip(self.plan.members, (0, 1, 0, -1, 0), strict=False):
            number, update = ours.round + about, digest(9999)
            said = Reported(participant, number, self.models.get(number - 1, update), update, 1, {}, ours.attempt)
            assert ours.welcomes(participant, number) == self.should_count(ours, said)

    # --- peers and their answers ---

    def check_answer(self, before, said, effects):
        """A peer hears exactly one verdict, first; a refused event changes nothing."""
        verdicts = [effect for effect in effects if isinstance(effect, Accept | Reject)]
        if not isinstance(said, PEERS):
            assert verdicts == []
            return
        (verdict,) = verdicts
        assert verdict == effects[0]
        assert verdict.participant == said.participant
        if isinstance(said, Reported):
            welcome = self.should_count(before, said) or self.counts_already(before, said)
            assert isinstance(verdict, Accept) == welcome, verdict
        if isinstance(verdict, Reject):
            REACH[f"refused {verdict.code}"] += 1
            assert not self.counts_already(before, said), "who did not hear the verdict may ask again"
            assert self.session == before
            assert all(isinstance(effect, Discard) for effect in effects[1:])
            assert verdict.code != "other_agreement" or not self.may_join(said)
            assert verdict.code != "not_in_cohort" or said.participant not in self.were_asked(said.round)
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
        same = known is not None and {**vars_of(known), "attempt": 0} == {**vars_of(said), "attempt": 0}
        return same and said.participant in self.here and not before.is_over()

    def should_count(self, before, said):
        """Whether a report ought to count, by the plan's rules."""
        sound = said.examples > 0 and set(said.metrics) <= {metric.name for metric in self.plan.metrics}
        sound = sound and 0.0 <= said.metrics.get("accuracy", 0.0) <= 1.0
        if not sound or said.participant not in self.here or (said.round, said.participant) in self.accepted:
            return False
        if before.phase is Phase.INITIALIZATION:
            awaited = not before.updates and said.participant == self.tried[-1]
            return said.round == 0 and awaited and said.model == said.update
        open_to = self.cohorts.get(said.round, [set()])[-1] if before.phase is Phase.REPORTING else set()
        if self.plan.late_updates == "use" and before.phase in (Phase.CONFIGURATION, Phase.REPORTING):
            open_to = self.were_asked(said.round)
        if said.round != before.round or said.participant not in open_to or said.model != self.models[said.round - 1]:
            return False
        return said.attempt == self.attempt or (self.plan.late_updates == "use" and said.attempt < self.attempt)

    def were_asked(self, number):
        return set().union(*self.cohorts.get(number, [])) if number else set(self.tried)

    def count(self, before, said):
        reported = isinstance(said, Reported)
        book = self.accepted if reported else self.evaluated
        key = (said.round, said.participant)
        if key in book:
            assert self.counts_already(before, said), "only the same answer is accepted again"
            assert self.session == before
            REACH["repeats"] += 1
            return
        book[key] = said
        if reported:
            late = said.round > 0 and said.participant not in self.cohorts[said.round][-1]
            REACH["late updates used"] += late or before.phase is Phase.CONFIGURATION or said.attempt < self.attempt
            if before.phase is Phase.REPORTING:
                self.cohorts[said.round][-1].add(said.participant)
            return  # the rest was asked in should_count
        assert (before.phase, before.round) == (Phase.EVALUATION, said.round)
        assert said.participant in self.were_asked(said.round)
        assert said.examples > 0
        assert set(said.metrics) <= {metric.name for metric in self.plan.metrics}
        assert 0.0 <= said.metrics.get("accuracy", 0.0) <= 1.0
        assert said.model == self.models[said.round]

    # --- attempts, turns, repairs ---

    def given(self, number):
        return {participant for about, participant in self.accepted if about == number}

    def check_attempt(self, before, said, effects):
        """A round with too few updates at its deadline is begun again as often as the plan says."""
        self.dropped = {}
        if self.is_up and before.phase in (Phase.CONFIGURATION, Phase.REPORTING):
            needed, number = self.plan.min_participants, before.round
            if len(self.given(number)) < needed and self.attempt < self.plan.repeats:
                self.attempt += 1
                self.cohorts.setdefault(number, []).append(set())
                REACH[f"attempt {self.attempt} {self.plan.late_updates}"] += 1
                if self.plan.late_updates == "drop":
                    self.dropped = {key: self.accepted.pop(key) for key in list(self.accepted) if key[0] == number}
        if self.session.round != before.round or isinstance(said, RolledBack):
            self.attempt = 0
        assert self.session.attempt == self.attempt

    def check_repairs(self, before, said, effects):
        """What is lost is taken out of the books, and what is left of the session is what is left in them."""
        if isinstance(said, Lost):
            key = (said.round, said.participant)
            counted = key in self.accepted and self.accepted[key].update == said.update
            if not counted or said.round != before.round or before.phase in (Phase.EVALUATION, *TERMINAL):
                assert (self.session, effects) == (before, ())
                return
            self.dropped = {key: self.accepted.pop(key)}
            self.folded.pop(said.round, None)
            REACH[f"lost in {before.phase}"] += 1
            assert {update.participant for update in self.session.updates} == self.given(said.round)
        if isinstance(said, RolledBack):
            number = said.round
            self.dropped = {key: self.accepted.pop(key) for key in list(self.accepted) if key[0] >= number}
            for book in (self.cohorts, self.folded, self.models, self.targets):
                for key in [key for key in book if key >= number]:
                    del book[key]
            self.evaluated = {key: answer for key, answer in self.evaluated.items() if key[0] < number}
            self.commits = self.commits[: max(0, number - 1)]
            self.ends = []
            self.tried = [] if number == 0 else self.tried
            REACH[f"rolled back in {before.phase}"] += 1
            REACH["rolled back twice or more"] += before.round - number > 1
            assert (self.session.round, self.session.updates) == (number, ())
            assert self.session.phase in (Phase.INITIALIZATION, Phase.CONFIGURATION, Phase.REPORTING, Phase.FAILED)

    def check_turn(self, before, said, effects):
        """Whenever somebody is asked something new the turn grows by one, and at no other time."""
        asks = [effect for effect in effects if isinstance(effect, ASKS)]
        assert len(asks) <= 1
        again = isinstance(said, Restarted) or (isinstance(said, Joined) and self.session.turn == before.turn)
        assert self.session.turn == before.turn + bool(asks and not again)
        if again and asks:
            assert (before.phase, before.cohort) == (self.session.phase, self.session.cohort)

    def check_ordered(self, before, said, effects):
        """What a phase needs done is ordered when it begins, when a turn begins, and after a restart."""
        ours = self.session
        kinds = {
            Phase.INITIALIZATION: Adopt if ours.updates else AskInitialModel,
            Phase.REPORTING: Configure,
            Phase.AGGREGATION: Aggregate,
            Phase.EVALUATION: AskEvaluation,
            Phase.FINISHED: Finish,
            Phase.FAILED: Fail,
        }
        begins = (before.phase, before.round, before.turn) != (ours.phase, ours.round, ours.turn)
        begins = begins or (ours.phase is Phase.INITIALIZATION and before.updates != ours.updates)
        back = isinstance(said, Joined) and isinstance(effects[0], Accept) and ours.owes(said.participant)
        needed = begins or back or isinstance(said, Restarted)
        if needed and ours.phase in kinds and (ours.phase is not Phase.REPORTING or ours.waits_for()):
            assert any(isinstance(effect, kinds[ours.phase]) for effect in effects)

    # --- effects ---

    def check_effect(self, before, said, effect):
        again = isinstance(said, Restarted)
        match effect:
            case AskInitialModel():
                self.check_initializer(before, said, effect)
            case Adopt():
                (report,) = [said for (number, _), said in self.accepted.items() if number == 0]
                assert (effect.update, effect.participant) == (report.update, report.participant)
            case Configure():
                self.check_configure(before, said, effect)
            case Aggregate():
                assert again or effect.round not in self.folded, "each round is aggregated once"
                assert self.folded.setdefault(effect.round, effect) == effect
                self.check_fold(said, effect)
            case AskEvaluation():
                assert effect.model == self.models[effect.round]
                assert oracle.is_evaluated(self.plan, effect.round)
                assert effect.cohort == ((said.participant,) if isinstance(said, Joined) else self.session.waits_for())
            case Commit():
                self.check_commit(before, said, effect)
            case Finish():
                assert effect.model == self.commits[-1].model
                self.ends.append(effect)
            case Fail():
                self.ends.append(effect)
                told = next(
                    (why for why in ("none of", "too few participants", "too few updates") if why in effect.reason),
                    "stopped",
                )
                REACH[f"failed: {told}"] += not again

    def check_initializer(self, before, said, effect):
        if (before.phase, before.cohort) != (self.session.phase, self.session.cohort):
            lots = sorted((oracle.lot(self.plan, 0, one), one) for one in self.here - set(self.tried))
            assert effect.participant == lots[0][1], "the next in the order of the lots, and nobody twice"
            self.tried.append(effect.participant)
            REACH[f"asked {len(self.tried)} for the initial model"] += 1
        assert effect == AskInitialModel(self.tried[-1], self.plan.seed, self.session.deadline)

    def check_configure(self, before, said, effect):
        number, attempt = effect.round, self.attempt
        assert number == len(self.commits) + 1
        assert effect.model == self.models[number - 1], "a round trains the model of the round before"
        assert (effect.deadline, effect.attempt) == (self.session.deadline, attempt)
        assert effect.seeds == tuple(oracle.seed(self.plan, number, one, attempt) for one in effect.cohort)
        attempts = self.cohorts.setdefault(number, [set()])
        if not attempts[-1]:
            given = self.given(number)
            attempts[-1] |= set(self.session.cohort)
            assert self.session.cohort == oracle.cohort(self.plan, number, attempt, self.here, given)
            self.targets[number] = oracle.target(self.plan, len(self.here | given))
            assert set(effect.cohort) == attempts[-1] - given, "who gave an update is not asked again"
            REACH["over-selected"] += len(self.session.cohort) > self.targets[number]
        elif isinstance(said, Joined):
            assert effect.cohort == (said.participant,), "who comes back is asked again, alone"
        assert list(effect.cohort) == sorted(effect.cohort)
        assert set(effect.cohort) <= (self.were_asked(number) & self.here) - self.given(number)

    def check_fold(self, said, effect):
        names = [participant for participant, _, _ in effect.updates]
        assert names == sorted(set(names)), "nobody counts twice, and arrival leaves no trace"
        assert len(names) >= self.plan.min_participants
        assert effect.model_before == self.models[effect.round - 1]
        expected = {p: report for (number, p), report in self.accepted.items() if number == effect.round}
        assert set(names) == set(expected), "every accepted update counts"
        for participant, update, weight in effect.updates:
            assert (update, weight) == (expected[participant].update, min(expected[participant].examples, 100))
        cohort, enough = self.cohorts[effect.round][-1], len(names) >= self.targets[effect.round]
        REACH["closed at the target, some missing"] += enough and bool(cohort - set(names))
        if not enough and not isinstance(said, Restarted) and not self.is_up:
            assert not (cohort & self.here) - set(names), "nobody is left to wait for"
            REACH["closed below the target, nobody left"] += 1

    def check_commit(self, before, said, effect):
        if isinstance(said, Restarted):
            assert effect == self.commits[-1]
            return
        self.commits.append(effect)
        number = effect.round
        assert number == len(self.commits)
        assert effect.model == self.models[number]
        assert effect.metrics == self.mean(number)
        evaluations = {participant for about, participant in self.evaluated if about == number}
        assert oracle.is_evaluated(self.plan, number) or not evaluations
        owing = (self.cohorts[number][-1] & self.here) - evaluations
        enough = len(evaluations) >= self.targets[number]
        if oracle.is_evaluated(self.plan, number) and not self.is_up:
            assert enough or not owing, "nobody is left to wait for"
        REACH["evaluated by a part"] += enough and bool(owing)
        REACH["not evaluated"] += bool(self.plan.metrics) and not oracle.is_evaluated(self.plan, number)
        early = oracle.stops_early(self.plan, [commit.metrics for commit in self.commits])
        done = early or number == self.plan.rounds
        assert done == (self.session.phase is Phase.FINISHED)
        REACH["stopped early"] += early and number < self.plan.rounds

    # --- the whole step ---

    def check_ends_and_beginnings(self, before, said):
        """Selection ends when all are there or enough at the deadline; a session fails when there are too few."""
        if before.is_over():
            return
        up, needed = self.is_up, self.plan.min_participants
        phase, number = before.phase, before.round
        if phase is Phase.SELECTION and self.session.phase not in (Phase.SELECTION, Phase.FAILED):
            assert self.here == set(self.plan.members) or (up and len(self.here) >= needed)
        must = isinstance(said, Stopped)
        if phase is Phase.SELECTION:
            must |= up and len(self.here) < needed
        if phase in (Phase.CONFIGURATION, Phase.REPORTING):
            kept = len({one for about, one in {**self.accepted, **self.dropped} if about == number})
            must |= up and kept < needed and before.attempt == self.plan.repeats
        if phase is Phase.INITIALIZATION or (isinstance(said, RolledBack) and said.round == 0):
            left = isinstance(said, Left) and said.participant == before.cohort[0] and not before.updates
            lost = isinstance(said, Lost) and bool(self.dropped) and before.cohort[0] not in self.here
            must |= (up or left or lost or isinstance(said, RolledBack)) and self.here <= self.tried_before
        assert (self.session.phase is Phase.FAILED) == must

    def check_discards(self, before, said, effects):
        """Bodies go when their update was refused, dropped, lost or folded, and never while it counts."""
        gone = [(effect.round, effect.participant, effect.update) for effect in effects if isinstance(effect, Discard)]
        dropped = [(number, who, report.update) for (number, who), report in self.dropped.items()]
        if isinstance(said, Aggregated) and not before.is_over():
            folded = [(said.round, who, update) for who, update, _ in self.folded[said.round].updates]
            assert gone == folded, "folded updates may go"
        elif isinstance(said, Adopted) and not before.is_over():
            assert gone == [(0, who, r.update) for (number, who), r in self.accepted.items() if number == 0]
        elif isinstance(said, Lost):
            assert gone == dropped
        elif self.dropped:
            assert set(gone) == {row for row in dropped if row[0] == before.round}, "what is dropped may go"
        for number, who, update in gone:
            counted = self.accepted.get((number, who))
            if counted and counted.update == update:
                assert number in self.models or self.session.phase is Phase.FAILED, "folded before it is deleted"
            elif (number, who, update) not in dropped:
                assert isinstance(said, Reported)
                assert (who, update) == (said.participant, said.update)

    def mean(self, number):
        told = {}
        for (about, _), said in self.evaluated.items():
            for name, value in said.metrics.items() if about == number else ():
                written = round(value, {"accuracy": 3, "loss": 6}[name])
                told.setdefault(name, []).append((oracle.decimal(written), min(said.examples, 100)))
        return {name: oracle.mean(pairs) for name, pairs in told.items()}

    def check_deadline(self, before, said):
        """A phase's clock is set once; only a restart and a loss set it anew."""
        ours = self.session
        waits_for_us = ours.phase is Phase.AGGREGATION or (ours.phase is Phase.INITIALIZATION and ours.updates)
        assert (ours.deadline is None) == bool(ours.is_over() or waits_for_us)
        together = {ours.phase, before.phase} <= {Phase.CONFIGURATION, Phase.REPORTING}
        same = (ours.round, ours.attempt) == (before.round, before.attempt)
        same = same and (ours.phase is before.phase or together)
        same = same and (ours.phase is not Phase.INITIALIZATION or ours.turn == before.turn)
        lost = isinstance(said, Lost) and ours != before and ours.phase is not Phase.CONFIGURATION
        anew = lost or isinstance(said, RolledBack)
        if isinstance(said, Restarted) or not same or anew:
            assert ours.deadline in (None, self.now + oracle.longest(self.plan, ours.phase))
        elif not waits_for_us:
            assert ours.deadline == before.deadline
        if isinstance(said, Ticked) and before.deadline is not None:
            assert (self.now >= before.deadline) == (ours != before), "time is up exactly at the deadline"


TERMINAL = (Phase.FINISHED, Phase.FAILED)


def vars_of(said):
    return {name: getattr(said, name) for name in said.__slots__}
