"""Redrives against a model: any mix of redrives, cancels, refused records, restarts and consumers that fail again.

Always: a letter is put back at most once; a record is in the group's hands only if its newest letter was put back; and in the
end, when redrives with no filter have run to their end, every letter was put back exactly once.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from logsvc.coordinator.events import DeadLetterWritten, LettersRead, LettersRedriven, ReadLetters
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common.errors import BrokerOverloaded
from logsvc_common.letters import Letter
from logsvc_common.messages import CancelRedrive, Failure, ListRedrives, ListRedrivesReply, RedriveFilter, StartRedrive
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import Harness

ONCE = RetryPolicy(max_attempts=1)
RECORDS = 12
LETTERS = "dlq.t.g"
LIMITS = CoordinatorLimits(redrive_failures_max=4, redrives_running_max=4, redrive_letters=5, redrives_kept=3)
FILTERS = st.builds(
    RedriveFilter,
    offsets=st.lists(st.tuples(st.integers(0, 6), st.integers(4, 12)), max_size=2),
    redrives=st.sampled_from([[], [(0, 0)], [(1, 9)]]),
)


class Redrives(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.broker = Harness(partitions=1, limits=LIMITS)
        self.letters: list[Letter] = []
        self.back: dict[int, int] = {}  # letter -> how often it was put back
        self.pending: list[ReadLetters] = []

    @initialize(failed=st.sets(st.integers(0, RECORDS - 1), min_size=1))
    def letters_are_written(self, failed: set[int]) -> None:
        self.broker.commit(RECORDS)
        for offset in sorted(failed):
            self.write_letter(offset, 0)

    def write_letter(self, offset: int, redrives: int) -> None:
        place = len(self.letters)
        key = b"even" if offset % 2 == 0 else None
        self.letters.append(Letter(place, 0, "t", 0, offset, 0, "g", 1, "", "", "", 0, redrives, None, key, b"", ()))
        self.broker.logs.topics[LETTERS] = [len(self.letters)]

    def redrives(self) -> ListRedrivesReply:
        reply = self.broker.handle(ListRedrives()).reply
        assert isinstance(reply, ListRedrivesReply)
        return reply

    def answer(self, read: ReadLetters, letters: int, *, refused: bool = False) -> None:
        upto = min(read.from_offset + letters, read.end_offset)
        event = LettersRead(read.redrive_id, 0, read.from_offset, upto, self.letters[read.from_offset : upto])
        if refused:
            self.broker.coordinator.handle(event, self.broker.now)
            return
        before = self.entries()
        effects = self.broker.handle(event).effects
        put_back = [entry.letter for offset, entry in self.entries().items() if before.get(offset) != entry]
        for letter in put_back:
            self.back[letter] = self.back.get(letter, 0) + 1
        assert [effect.count for effect in effects if isinstance(effect, LettersRedriven)] == (
            [len(put_back)] if put_back else []
        )

    def entries(self) -> dict:
        group = self.broker.coordinator._groups["g"]
        return group.progress["t", 0].failed.entries()

    @rule(
        where=FILTERS,
        rate=st.sampled_from([0, 1, 20]),
        limit=st.sampled_from([0, 0, 1, 3]),
        dry_run=st.sampled_from([False, False, False, True]),
    )
    def start(self, where: RedriveFilter, rate: int, limit: int, dry_run: bool) -> None:
        try:
            self.broker.handle(StartRedrive("g", "t", where, rate, limit, dry_run))
        except BrokerOverloaded:
            assert sum(redrive.state == "running" for redrive in self.redrives().redrives) == LIMITS.redrives_running_max

    @rule(redrive_id=st.integers(1, 12))
    def cancel(self, redrive_id: int) -> None:
        if any(redrive.redrive_id == redrive_id for redrive in self.redrives().redrives):
            self.broker.handle(CancelRedrive(redrive_id))

    @rule(ms=st.sampled_from([0, 1, 300, 2_000]))
    def time_passes(self, ms: int) -> None:
        self.pending += [effect for effect in self.broker.pass_time(ms).effects if isinstance(effect, ReadLetters)]

    @rule(
        place=st.integers(0, 9), letters=st.integers(1, 6), fate=st.sampled_from(["fine", "fine", "refused", "lost", "twice"])
    )
    def a_read_is_answered(self, place: int, letters: int, fate: str) -> None:
        if not self.pending:
            return
        read = self.pending.pop(place % len(self.pending))
        if fate != "lost":
            self.answer(read, letters, refused=fate == "refused")
        if fate == "twice":
            self.answer(read, letters)

    @rule(steps=st.integers(1, 4))
    def it_goes_smoothly(self, steps: int) -> None:
        for _ in range(steps):
            self.time_passes(300)
            while self.pending:
                self.answer(self.pending.pop(), 5)
            for record in self.broker.retries():
                self.broker.commit(done=[record.offset])

    @rule(fails=st.booleans())
    def the_consumer_takes_one(self, fails: bool) -> None:
        for record in self.broker.retries(max_records=1):
            if not fails:
                self.broker.commit(done=[record.offset])
                return
            entry = self.entries()[record.offset]
            self.broker.commit(failed=[Failure(record.offset, "again", attempt=record.attempt)], retry=ONCE)
            self.write_letter(record.offset, entry.redrives)
            self.broker.handle(DeadLetterWritten("g", "t", 0, record.offset, len(self.letters) - 1))

    @rule()
    def restart(self) -> None:
        self.broker.restart()

    @invariant()
    def no_letter_is_put_back_twice(self) -> None:
        assert set(self.back.values()) <= {1}

    @invariant()
    def marks_and_failures_agree(self) -> None:
        if not self.letters:
            return
        (found,) = self.redrives().letters
        assert found.redriven == len(self.back)
        for offset, entry in self.entries().items():
            assert self.back.get(entry.letter) == 1
            assert self.letters[entry.letter].offset == offset
            assert entry.redrives == (self.letters[entry.letter].redrives or 0) + 1

    def teardown(self) -> None:
        """Handle everything, redrive the rest: every letter has gone back once."""
        if not self.letters:
            return
        for redrive in self.redrives().redrives:
            self.broker.handle(CancelRedrive(redrive.redrive_id))
        self.broker.handle(StartRedrive("g", "t"))
        for _ in range(200):
            for record in self.broker.retries():
                self.broker.commit(done=[record.offset])
            self.pending = []
            self.time_passes(2_000)
            for read in self.pending:
                self.answer(read, 5)
            if not self.entries() and all(redrive.state != "running" for redrive in self.redrives().redrives):
                break
        self.no_letter_is_put_back_twice()
        assert sorted(self.back) == list(range(len(self.letters)))


Redrives.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRedrives = Redrives.TestCase
