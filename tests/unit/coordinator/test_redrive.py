"""Redriving, decision by decision: what may be started, what a step takes, what it waits for, what a restart remembers."""

import pytest

from logsvc.coordinator.events import LettersRead, LettersRedriven, ReadLetters, RetriesChanged, TopicDeleted
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_common.errors import (
    BrokerOverloaded,
    InvalidGroupName,
    InvalidRequest,
    LogsvcError,
    UnknownGroup,
    UnknownRedrive,
    UnknownTopic,
)
from logsvc_common.keys import murmur2
from logsvc_common.letters import Letter
from logsvc_common.messages import (
    CancelRedrive,
    CancelRedriveReply,
    DeleteGroup,
    DueRecord,
    LetterTopic,
    ListRedrives,
    ListRedrivesReply,
    Redrive,
    RedriveFilter,
    StartRedrive,
    StartRedriveReply,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import Harness, failure

ONCE = RetryPolicy(max_attempts=1)
LETTERS = "dlq.t.g"


def letter(place: int, offset: int, *, partition: int = 0, key: bytes | None = None, redrives: int = 0) -> Letter:
    return Letter(place, 50, "t", partition, offset, 10, "g", 1, "broken", "E", "", 40, redrives, None, key, b"v", ())


class Redriving(Harness):
    """The group has read 100 records of each partition; its letters are those the test says."""

    def __init__(self, *, letters: int = 10, partitions: int = 1, limits: CoordinatorLimits | None = None) -> None:
        super().__init__(partitions=partitions, limits=limits or CoordinatorLimits())
        self.logs.topics[LETTERS] = [letters] * partitions
        for partition in range(partitions):
            self.commit(100, partition=partition)

    def start(self, where: RedriveFilter | None = None, **fields: object) -> Redrive:
        reply = self.handle(StartRedrive("g", "t", where or RedriveFilter(), **fields)).reply  # type: ignore[arg-type]
        assert isinstance(reply, StartRedriveReply)
        return reply.redrive

    def listing(self, group: str | None = None) -> ListRedrivesReply:
        reply = self.handle(ListRedrives(group)).reply
        assert isinstance(reply, ListRedrivesReply)
        return reply

    def the_one(self) -> Redrive:
        (redrive,) = self.listing().redrives
        return redrive

    def reads(self, ms: int = 0) -> list[ReadLetters]:
        """What is to be read after so much time."""
        return [effect for effect in self.pass_time(ms).effects if isinstance(effect, ReadLetters)]

    def answer(self, read: ReadLetters, *letters: Letter, upto: int | None = None, error: str = "") -> list[object]:
        """Letters that were read; returns what is to happen."""
        end = read.end_offset if upto is None else upto
        event = LettersRead(read.redrive_id, read.partition, read.from_offset, end, letters, error)
        return list(self.handle(event).effects)

    def step(self, *letters: Letter, upto: int | None = None) -> list[object]:
        (read,) = self.reads()
        return self.answer(read, *letters, upto=upto)

    def step_all(self, *letters: Letter) -> None:
        for read in self.reads():
            self.answer(read, *letters, upto=read.from_offset + 1)


class TestStarting:
    @pytest.mark.parametrize(
        ("request_", "error"),
        [
            (StartRedrive("nobody", "t"), UnknownGroup),
            (StartRedrive("a b", "t"), InvalidGroupName),
            (StartRedrive("g", "nope"), UnknownTopic),
            (StartRedrive("g", "t", rate_per_s=-1), InvalidRequest),
            (StartRedrive("g", "t", limit=-1), InvalidRequest),
        ],
    )
    def test_what_cannot_be_started_is_refused(self, request_: StartRedrive, error: type[LogsvcError]) -> None:
        with pytest.raises(error):
            Redriving().handle(request_)

    def test_without_letters_there_is_nothing_to_start(self) -> None:
        broker = Harness()
        broker.commit(5)
        for topic in ("t", None):
            with pytest.raises(UnknownTopic, match="dead letters"):
                broker.handle(StartRedrive("g", topic))

    def test_the_topic_may_be_left_out_when_there_is_one(self) -> None:
        broker = Redriving()
        reply = broker.handle(StartRedrive("g")).reply
        assert isinstance(reply, StartRedriveReply)
        assert (reply.redrive.topic, reply.redrive.dead_letter_topic, reply.redrive.total) == ("t", LETTERS, 10)

    def test_an_empty_dead_letter_topic_is_done_at_once(self) -> None:
        broker = Redriving(letters=0)
        assert broker.start().state == "done"
        assert broker.reads() == []

    def test_the_same_token_is_the_same_redrive(self) -> None:
        broker = Redriving()
        first = broker.start(token="a")
        assert broker.start(token="a") == first
        assert broker.start(token="b").redrive_id == first.redrive_id + 1
        broker.restart()
        assert broker.start(token="a").redrive_id == first.redrive_id

    def test_only_so_many_run(self) -> None:
        broker = Redriving(limits=CoordinatorLimits(redrives_running_max=2))
        broker.start()
        broker.start(dry_run=True)
        with pytest.raises(BrokerOverloaded):
            broker.start()

    def test_the_oldest_that_are_over_are_forgotten(self) -> None:
        broker = Redriving(letters=0, limits=CoordinatorLimits(redrives_kept=3))
        for _ in range(5):
            broker.start()
            broker.start(dry_run=True)
        found = broker.listing("g").redrives
        assert [r.redrive_id for r in found if not r.dry_run] == [5, 7, 9]
        assert [r.redrive_id for r in found if r.dry_run] == [6, 8, 10]


class TestSteps:
    def test_a_letter_becomes_a_failure_that_is_due_with_a_fresh_budget(self) -> None:
        broker = Redriving()
        broker.start()
        (read,) = broker.reads()
        assert read == ReadLetters(1, LETTERS, 0, 0, 10, 500)
        effects = broker.answer(read, letter(3, 7, key=b"k", redrives=2))
        assert effects == [RetriesChanged("g"), LettersRedriven("g", "t", 1)]
        assert broker.retries() == [DueRecord(7, 1, murmur2(b"k"), 3)]
        found = broker.the_one()
        assert (found.state, found.scanned, found.matched, found.redriven) == ("done", 10, 1, 1)
        broker.commit(failed=[failure(7, attempt=1)], retry=ONCE)
        (effect,) = broker.letters_asked_for()
        assert dict(effect.headers)["logsvc.dlq.redrive.count"] == b"3"
        assert dict(effect.headers)["logsvc.dlq.first.failure.timestamp"] == b"40"
        assert effect.letter == 3

    def test_a_redriven_record_is_retried_like_any_other_and_remembers_its_letter(self) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(3, 7))
        broker.retries()
        assert broker.commit(failed=[failure(7, attempt=1)]).verdicts[0].state == "waiting"
        broker.pass_time(60_000)
        assert broker.retries() == [DueRecord(7, 2, None, 3)]
        broker.commit(done=[7])
        assert broker.offsets().outstanding == []

    def test_records_of_a_key_come_in_order_and_a_later_one_only_behind_those_before_it(self) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(0, 9, key=b"a"), letter(1, 4, key=b"a"), letter(2, 5, key=b"b"))
        assert [record.offset for record in broker.retries(max_records=1)] == [4]
        assert [record.offset for record in broker.retries()] == [5], "9 waits for 4, which is out"
        broker.commit(done=[4])
        assert [record.offset for record in broker.retries()] == [9]

    def test_steps_follow_one_another_from_where_the_last_one_ended(self) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(0, 1), letter(1, 2), upto=2)
        (read,) = broker.reads()
        assert read.from_offset == 2
        assert broker.reads() == [], "one step at a time"
        broker.answer(read, upto=10)
        assert broker.the_one().state == "done"

    def test_an_answer_that_nobody_waits_for_changes_nothing(self) -> None:
        broker = Redriving()
        broker.start()
        (read,) = broker.reads()
        broker.answer(read, letter(0, 1), upto=1)
        assert broker.handle(LettersRead(1, 0, 0, 1, [letter(0, 1)])).records == []
        assert broker.handle(LettersRead(7, 0, 0, 1, [letter(0, 1)])).records == []
        broker.handle(CancelRedrive(1))
        assert broker.reads(10_000) == []

    def test_a_step_whose_records_were_refused_is_taken_again(self) -> None:
        broker = Redriving()
        broker.start()
        (read,) = broker.reads()
        lost = broker.coordinator.handle(LettersRead(1, 0, 0, 10, [letter(0, 1)]), broker.now)
        assert lost.records
        assert broker.reads(1_000) == [read]
        broker.answer(read, letter(0, 1))
        assert broker.the_one().redriven == 1

    def test_letters_that_cannot_be_read_are_waited_for(self) -> None:
        broker = Redriving(partitions=2)
        broker.start()
        (read,) = broker.reads()
        broker.answer(read, error="the disk is on fire")
        (other,) = broker.reads()
        assert other.partition == 1, "the other partition goes on meanwhile"
        broker.answer(other)
        assert broker.reads(100) == []
        assert broker.the_one().waiting == "the disk is on fire"
        (again,) = broker.reads(600)
        assert (again.partition, again.from_offset) == (0, 0)
        broker.answer(again)
        assert broker.the_one().state == "done"

    def test_a_partition_with_many_failures_is_waited_for(self) -> None:
        broker = Redriving(limits=CoordinatorLimits(redrive_failures_max=2))
        broker.start()
        broker.step(letter(0, 1), letter(1, 2), letter(2, 3))
        assert broker.reads() == []
        assert "t-0" in broker.the_one().waiting
        assert broker.offsets().full is False
        broker.retries()
        broker.commit(done=[1])
        (read,) = broker.reads(500)
        assert read.from_offset == 2
        broker.answer(read, letter(2, 3))
        assert (broker.the_one().state, broker.the_one().redriven, broker.the_one().waiting) == ("done", 3, "")

    def test_a_letter_that_is_not_completed_yet_is_waited_for(self) -> None:
        broker = Redriving()
        broker.commit(failed=[failure(150)], retry=ONCE)
        broker.start()
        broker.step(letter(0, 1), letter(1, 150), letter(2, 3))
        found = broker.the_one()
        assert (found.redriven, found.scanned) == (1, 1)
        assert broker.reads() == []
        assert "completed" in broker.the_one().waiting
        (read,) = broker.reads(500)
        assert read.from_offset == 1

    def test_a_record_that_is_not_done_is_left_alone(self) -> None:
        broker = Redriving()
        broker.commit(failed=[failure(60), failure(170)], done=[])
        broker.start()
        broker.step(letter(0, 60), letter(1, 170), letter(2, 160), letter(3, 5), letter(4, 5))
        found = broker.the_one()
        # 60 is not known to have failed: below the committed offset without an entry it is done.
        assert (found.matched, found.redriven, found.skipped) == (5, 2, 3)
        assert [record.offset for record in broker.retries()] == [5, 60]

    def test_a_record_done_ahead_of_the_committed_offset_is_redriven(self) -> None:
        broker = Redriving()
        broker.commit(failed=[failure(120)])
        broker.commit(done=[120])
        broker.start()
        broker.step(letter(0, 120))
        assert [record.offset for record in broker.retries()] == [120]
        assert broker.offsets().outstanding[0].state == "delivered"

    def test_a_letter_without_its_record_is_left_out(self) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(0, 5)._replace(missing="gone"))
        assert (broker.the_one().matched, broker.the_one().skipped) == (1, 1)

    def test_partitions_take_turns(self) -> None:
        broker = Redriving(partitions=3, letters=2)
        broker.start()
        order = []
        while reads := broker.reads():
            order.append((reads[0].partition, reads[0].from_offset))
            broker.answer(reads[0], upto=reads[0].from_offset + 1)
        assert order == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
        assert broker.the_one().state == "done"


class TestRateAndLimit:
    def test_a_rate_spaces_the_steps(self) -> None:
        broker = Redriving()
        broker.start(rate_per_s=10)
        broker.step(*(letter(n, n) for n in range(10)))
        assert broker.the_one().redriven == 2
        assert broker.reads(199) == []
        (read,) = broker.reads(1)
        assert read.from_offset == 2

    def test_letters_that_do_not_match_cost_no_time(self) -> None:
        broker = Redriving()
        broker.start(RedriveFilter(partitions=[9]), rate_per_s=1)
        broker.step(letter(0, 0), upto=5)
        assert [read.from_offset for read in broker.reads()] == [5]

    def test_a_limit_ends_it(self) -> None:
        broker = Redriving()
        broker.start(limit=3)
        broker.step(letter(0, 0), letter(1, 1), upto=2)
        broker.step(letter(2, 2), letter(3, 3))
        found = broker.the_one()
        assert (found.state, found.redriven, found.scanned) == ("done", 3, 3)


class TestOneAfterTheOther:
    def test_letters_redriven_before_are_passed_over_unread(self) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(0, 0), letter(1, 1), letter(2, 2), upto=3)
        broker.handle(CancelRedrive(1))
        broker.start()
        (read,) = broker.reads()
        assert read.from_offset == 3
        assert [record.offset for record in broker.retries()] == [0, 1, 2]
        broker.commit(done=[0, 1, 2])
        broker.answer(read, letter(5, 5), letter(2, 2))
        assert [record.offset for record in broker.retries()] == [5]
        assert broker.listing().letters == [LetterTopic(LETTERS, "t", "g", 4)]

    def test_two_at_once_share_the_letters(self) -> None:
        broker = Redriving()
        broker.start()
        broker.start()
        first, second = broker.reads()
        broker.answer(first, letter(0, 0), letter(1, 1))
        broker.answer(second, letter(0, 0), letter(1, 1))
        assert [found.redriven for found in broker.listing().redrives] == [2, 0]

    def test_cancelling_is_final_and_may_be_said_twice(self) -> None:
        broker = Redriving()
        broker.start()
        for _ in range(2):
            reply = broker.handle(CancelRedrive(1)).reply
            assert isinstance(reply, CancelRedriveReply)
            assert reply.redrive.state == "cancelled"
        assert broker.restart() == []
        assert broker.reads(10_000) == []
        with pytest.raises(UnknownRedrive):
            broker.handle(CancelRedrive(2))


class TestRemembering:
    def test_a_restart_goes_on_from_the_last_step(self) -> None:
        broker = Redriving()
        broker.start(rate_per_s=1_000)
        broker.step(letter(0, 0), letter(1, 1), upto=4)
        before = broker.the_one()
        broker.restart()
        assert broker.the_one() == before
        (read,) = broker.reads()
        assert read.from_offset == 4

    def test_a_dry_run_writes_nothing_and_is_forgotten(self) -> None:
        broker = Redriving()
        written = len(broker.written)
        broker.start(dry_run=True)
        broker.step(letter(0, 0), letter(1, 200), upto=5)
        broker.step(letter(6, 6))
        found = broker.the_one()
        assert (found.state, found.matched, found.redriven, found.skipped) == ("done", 3, 0, 1)
        assert len(broker.written) == written
        broker.restart()
        assert broker.listing().redrives == []

    def test_deleting_the_group_ends_its_redrives(self) -> None:
        broker = Redriving()
        broker.start(rate_per_s=1)
        broker.start(dry_run=True)
        broker.step_all(letter(0, 0))
        broker.handle(DeleteGroup("g"))
        assert broker.listing() == ListRedrivesReply([], [])
        assert broker.reads(10_000) == []
        assert list(broker.coordinator.snapshot()) == []

    @pytest.mark.parametrize("topic", ["t", LETTERS])
    def test_deleting_a_topic_ends_its_redrives_and_forgets_its_marks(self, topic: str) -> None:
        broker = Redriving()
        broker.start()
        broker.step(letter(0, 0), upto=1)
        del broker.logs.topics[topic]
        broker.handle(TopicDeleted(topic))
        assert broker.listing().redrives == []
        assert broker.reads(10_000) == []
        if topic == LETTERS:
            broker.logs.topics[LETTERS] = [10]
            assert broker.listing().letters == [LetterTopic(LETTERS, "t", "g", 0)]

    def test_letters_that_retention_removes_meanwhile_are_behind_it(self) -> None:
        broker = Redriving()
        broker.start()
        broker.logs.start_offset = lambda topic, partition: 10 if topic == LETTERS else 0  # type: ignore[method-assign]
        assert broker.reads() == []
        assert (broker.the_one().state, broker.the_one().scanned) == ("done", 10)
