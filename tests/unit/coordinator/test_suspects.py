"""Poison pills: who is suspected of a death, who is charged with it, and when that is over."""

import pytest

from logsvc.coordinator.events import TopicDeleted
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc.coordinator.suspects import DIED_CLASS, DIED_ERROR
from logsvc_common.errors import OffsetOutOfRange
from logsvc_common.messages import (
    JOIN_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    CommitResult,
    Failure,
    FetchOffsetsPartition,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import STEADY, Harness, failure

SESSION_MS = 1_000


class Victims(Harness):
    """Members `m0`, `m1`, ... one after the other; each reads the only partition."""

    def __init__(self, retry: RetryPolicy = STEADY, **limits: int) -> None:
        super().__init__(partitions=1, limits=CoordinatorLimits(**limits))
        self.retry = retry
        self.number = -1
        self.begin()

    @property
    def name(self) -> str:
        return f"m{self.number}"

    @property
    def epoch(self) -> int:
        return self.coordinator.describe("g", self.now).members[0].member_epoch

    def begin(self) -> None:
        self.number += 1
        self.handle(
            GroupHeartbeat(
                "g", self.name, JOIN_EPOCH, topics=["t"], session_timeout_ms=SESSION_MS, retry=self.retry, client_id="test"
            )
        )

    def die(self) -> None:
        """The session of the member runs out, and the next one begins."""
        self.pass_time(SESSION_MS)
        self.begin()

    def progress(self, offset: int = -1, *, attempting: int = -1, key: int | None = None, **fields: object) -> CommitResult:
        part = CommitPartition("t", 0, offset, attempting=attempting, attempting_key_hash=key, **fields)  # type: ignore[arg-type]
        reply = self.handle(Commit("g", self.name, self.epoch, [part], self.retry)).reply
        assert isinstance(reply, CommitReply)
        return reply.results[0]

    def due(self, poll: int = 0) -> FetchRetriesReply:
        request = FetchRetries("g", self.name, self.epoch, [FetchOffsetsPartition("t", 0)], 0, 500, poll)
        reply = self.handle(request).reply
        assert isinstance(reply, FetchRetriesReply)
        return reply

    @property
    def described(self) -> tuple[int, bool]:
        [found] = self.coordinator.describe("g", self.now).partitions
        return found.deaths, found.isolated


def isolated(**limits: int) -> Victims:
    """A partition with 1,000 records, 100 of them committed, isolated by two deaths."""
    broker = Victims(**limits)
    broker.progress(100)
    broker.die()
    broker.die()
    assert broker.described == (2, True)
    return broker


class TestSuspicion:
    def test_nothing_is_recorded_of_a_group_whose_members_live(self) -> None:
        broker = Victims()
        before = len(broker.written)
        broker.progress(100)
        broker.progress(200, attempting=200)
        assert len(broker.written) - before == 2, "one record a commit"
        assert broker.described == (0, False)

    def test_one_death_suspects_and_the_second_isolates(self) -> None:
        broker = Victims()
        broker.progress(100)
        broker.die()
        assert broker.described == (1, False)
        assert not broker.offsets().isolated
        broker.die()
        assert broker.described == (2, True)
        assert broker.offsets().isolated
        assert broker.progress(100).isolated
        assert broker.due().isolated

    def test_it_works_before_the_first_commit_too(self) -> None:
        broker = Victims()
        broker.die()
        broker.die()
        assert broker.offsets().committed == -1
        assert broker.offsets().isolated

    def test_who_had_read_everything_dies_unsuspected(self) -> None:
        broker = Victims()
        broker.progress(1_000)
        broker.die()
        assert broker.described == (0, False)

    def test_who_had_read_everything_but_held_retries_is_suspected(self) -> None:
        broker = Victims()
        broker.progress(1_000, failed=[failure(7)])
        broker.pass_time(999)
        broker.beat(broker.name, broker.epoch)
        broker.pass_time(1)
        assert [record.offset for record in broker.due().results[0].records] == [7]
        broker.die()
        assert broker.described == (1, False)
        assert [record.attempt for record in broker.due().results[0].records] == [2], "a death is no attempt by itself"
        broker.progress(done=[7])
        assert broker.described == (0, False)

    def test_leaving_is_not_dying(self) -> None:
        broker = Victims()
        broker.progress(100)
        for _ in range(3):
            broker.leave(broker.name)
            broker.begin()
        assert broker.described == (0, False)

    def test_getting_past_what_was_there_at_the_death_ends_it(self) -> None:
        broker = Victims()
        broker.progress(100)
        broker.die()
        broker.logs.topics["t"][0] = 5_000
        broker.progress(999)
        assert broker.described == (1, False)
        broker.progress(1_000)
        assert broker.described == (0, False)
        broker.die()
        assert broker.described == (1, False), "it begins again"

    def test_no_more_than_so_many_records_are_under_suspicion(self) -> None:
        broker = Victims(suspect_records_max=50)
        broker.progress(100)
        broker.die()
        broker.progress(149)
        assert broker.described == (1, False)
        broker.progress(150)
        assert broker.described == (0, False)

    def test_a_restart_remembers_it(self) -> None:
        broker = isolated()
        broker.progress(100, attempting=100)
        broker.restart()
        assert broker.described == (2, True)
        broker.die()
        assert broker.described == (3, True)
        assert broker.offsets().outstanding[0].offset == 100

    def test_a_deleted_topic_takes_it_along(self) -> None:
        broker = isolated()
        del broker.logs.topics["t"]
        broker.handle(TopicDeleted("t"))
        assert broker.described == (0, False)


class TestCharge:
    def test_a_record_alone_in_hand_spends_an_attempt_and_waits_as_any_failure_does(self) -> None:
        broker = isolated()
        assert not broker.progress(105, attempting=105, key=7).full
        broker.die()
        found = broker.offsets()
        assert found.committed == 106
        assert [(entry.offset, entry.key_hash, entry.state) for entry in found.outstanding] == [(105, 7, "waiting")]
        # STEADY waits a second after the first attempt; the session took as long.
        assert broker.due().results == []
        broker.pass_time(999)
        broker.beat(broker.name, broker.epoch)
        broker.pass_time(1)
        assert [(r.offset, r.attempt) for r in broker.due().results[0].records] == [(105, 2)]

    def test_its_budget_ends_in_a_dead_letter_and_the_suspicion_with_it(self) -> None:
        broker = isolated()
        broker.progress(105, attempting=105)
        broker.die()
        for attempt in (2, 3):
            assert [(r.offset, r.attempt) for r in wait_for_retries(broker)] == [(105, attempt)]
            broker.progress(attempting=105)
            broker.die()
        [letter] = broker.letters_asked_for()
        headers = dict(letter.headers)
        assert letter.offset == 105
        assert headers["__dlq.errors.message"] == DIED_ERROR.encode()
        assert headers["logsvc.dlq.exception.class"] == DIED_CLASS.encode()
        assert headers["__dlq.errors.delivery.count"] == b"3"
        assert broker.described == (0, False)

    def test_a_culprit_that_is_handled_after_all_ends_it_too(self) -> None:
        broker = isolated()
        broker.progress(105, attempting=105)
        broker.die()
        wait_for_retries(broker)
        broker.progress(attempting=105)
        assert broker.described == (3, True)
        assert not broker.progress(done=[105]).isolated
        assert broker.described == (0, False)

    def test_a_culprit_that_waits_keeps_the_partition_isolated_to_the_end(self) -> None:
        broker = isolated()
        broker.progress(105, attempting=105)
        broker.die()
        assert broker.progress(1_000).isolated
        assert broker.described == (3, True)

    def test_the_policy_is_that_of_the_member_that_died(self) -> None:
        broker = Victims(retry=RetryPolicy(max_attempts=1, on_exhausted="pause"))
        broker.progress(100)
        broker.die()
        broker.die()
        broker.progress(100, attempting=100)
        broker.die()
        assert [entry.state for entry in broker.offsets().outstanding] == ["paused"]

    def test_a_policy_may_name_the_death_among_what_is_not_tried_again(self) -> None:
        broker = Victims(retry=RetryPolicy(max_attempts=9, no_retry=("ConsumerDied",)))
        broker.progress(100)
        broker.die()
        broker.die()
        broker.progress(100, attempting=100)
        broker.die()
        assert [letter.reason for letter in broker.letters_asked_for()] == ["no_retry"]

    @pytest.mark.parametrize("how", ["commit", "leave", "rejoin"])
    def test_who_has_put_it_back_did_not_die_of_it(self, how: str) -> None:
        broker = isolated()
        broker.progress(105, attempting=105)
        if how == "commit":
            broker.progress(105)
        elif how == "leave":
            broker.leave(broker.name)
            broker.begin()
        else:
            broker.join(broker.name, session_timeout_ms=SESSION_MS)
        broker.die()
        assert broker.offsets().outstanding == []
        assert broker.described == (3, True)

    def test_the_next_owner_is_not_charged_for_what_the_one_before_tried(self) -> None:
        broker = isolated()
        broker.progress(105, attempting=105)
        broker.die()
        broker.die()
        assert [entry.offset for entry in broker.offsets().outstanding] == [105]
        assert [(r.offset, r.attempt) for r in wait_for_retries(broker)] == [(105, 2)]

    def test_what_is_tried_without_being_isolated_is_not_recorded(self) -> None:
        broker = Victims()
        broker.progress(100)
        broker.die()
        broker.progress(105, attempting=105)
        broker.die()
        assert broker.offsets().outstanding == []

    def test_a_new_record_of_a_full_partition_is_not_handed_out_and_not_recorded(self) -> None:
        broker = isolated(failures_per_partition_max=1)
        broker.progress(104, failed=[Failure(103, "no", key_hash=1)])
        assert broker.progress(105, attempting=105).full
        broker.die()
        assert [entry.offset for entry in broker.offsets().outstanding] == [103]

    def test_it_names_a_record_that_is_there(self) -> None:
        broker = isolated()
        assert broker.progress(105, attempting=1_000).error_code == OffsetOutOfRange.code


class TestHandingOut:
    def test_retries_of_an_isolated_partition_come_one_at_a_time(self) -> None:
        broker = Victims()
        broker.progress(100, failed=[failure(7), failure(8), failure(9)])
        broker.die()
        broker.die()
        assert [r.offset for r in broker.due().results[0].records] == [7]
        assert broker.due().results == []
        assert (
            broker.coordinator.next_due_ms(
                FetchRetries("g", broker.name, broker.epoch, [FetchOffsetsPartition("t", 0)]), broker.now
            )
            is None
        ), "nothing comes until that one is done"
        broker.progress(done=[7])
        assert [r.offset for r in broker.due().results[0].records] == [8]

    def test_an_answer_that_was_lost_is_given_again(self) -> None:
        broker = Victims()
        broker.progress(100, failed=[failure(7), failure(8)])
        broker.die()
        broker.die()
        first = broker.due(poll=5).results[0].records
        assert broker.due(poll=5).results[0].records == first


def wait_for_retries(broker: Victims) -> list:
    """Let time pass, heartbeating, until a retry is handed out."""
    for _ in range(100):
        results = broker.due().results
        if results:
            return list(results[0].records)
        broker.pass_time(100)
        broker.beat(broker.name, broker.epoch)
    raise AssertionError("nothing fell due")
