"""The breaker of a group in the coordinator: what is held back, which record is the probe, what is spent."""

from collections.abc import Iterable

from logsvc.coordinator.events import RetriesChanged
from logsvc_common.messages import (
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    CommitReply,
    CommitResult,
    ConfigureGroup,
    FetchOffsetsPartition,
    FetchRetries,
    FetchRetriesReply,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.coordinator.harness import Harness, failure

POLICY = RetryPolicy(max_attempts=3, initial_ms=100, max_ms=100, jitter=0.0)
OPEN_MS = 5_000


class Flooded(Harness):
    """Two partitions, no members. `flood` opens the breaker."""

    def __init__(self) -> None:
        super().__init__(partitions=2)
        self.commit(0)
        self.commit(0, partition=1)

    def flood(self, *, begin: int = 0, count: int = 60, partition: int = 0) -> CommitResult:
        return self.commit(
            begin + count, partition=partition, failed=[failure(n) for n in range(begin, begin + count)], retry=POLICY
        )

    def poll(self, partitions: Iterable[int] = (0, 1), poll: int = 0) -> FetchRetriesReply:
        asked = [FetchOffsetsPartition("t", partition) for partition in partitions]
        reply = self.handle(FetchRetries("g", "", NO_MEMBER_EPOCH, asked, 0, 500, poll)).reply
        assert isinstance(reply, FetchRetriesReply)
        return reply

    def given(self, partitions: Iterable[int] = (0, 1), poll: int = 0) -> list[tuple[int, int, int]]:
        """Partition, offset and attempt of what is handed out."""
        return [(found.partition, r.offset, r.attempt) for found in self.poll(partitions, poll).results for r in found.records]

    def held(self, kind: str = "full") -> set[int]:
        return {number for entry in getattr(self.poll(), kind) for number in entry.partitions}

    @property
    def state(self) -> str:
        return self.coordinator.describe("g", self.now).breaker.state

    def attempts(self) -> list[int]:
        progress = self.coordinator._groups["g"].progress["t", 0]
        return [entry.attempts for entry in progress.failed.entries().values()]


def half_open() -> Flooded:
    broker = Flooded()
    broker.flood()
    broker.pass_time(OPEN_MS)
    assert broker.state == "half_open"
    return broker


class TestOpen:
    def test_it_opens_within_one_commit_and_the_rest_of_it_spends_nothing(self) -> None:
        broker = Flooded()
        result = broker.flood(count=60)
        assert result.full
        assert broker.state == "open"
        spent = [verdict.attempts for verdict in result.verdicts]
        assert spent == [1] * 20 + [0] * 40
        assert broker.attempts() == spent
        assert RetriesChanged("g", answer=True) in broker.effects

    def test_many_failures_reported_together_with_successes_are_no_run(self) -> None:
        for done, other in (([9_000], 0), ([], 500)):
            broker = Flooded()
            broker.commit(9_001, failed=[failure(9_000)], retry=POLICY)
            broker.commit(900, partition=1)
            # 50 in a row, but not one of them is known to have come before those that were handled.
            parts = [
                CommitPartition("t", 0, -1, [failure(n) for n in range(9_001, 9_051)], done=done, handled=0),
                CommitPartition("t", 1, 900 + other, handled=other),
            ]
            broker.logs.topics["t"] = [10_000, 10_000]
            broker.handle(Commit("g", "", NO_MEMBER_EPOCH, parts, POLICY))
            assert broker.state == "closed"

    def test_every_partition_is_full_and_nothing_falls_due(self) -> None:
        broker = Flooded()
        broker.flood()
        broker.pass_time(OPEN_MS - 1)
        assert broker.held() == {0, 1}
        assert broker.given() == []
        assert broker.next_due_ms() is None
        assert broker.offsets(1).full
        assert broker.commit(5, partition=1).full

    def test_what_fails_meanwhile_waits_with_the_attempts_it_had(self) -> None:
        broker = Flooded()
        broker.flood()
        result = broker.commit(70, failed=[failure(65)], retry=RetryPolicy(max_attempts=1))
        assert [(v.state, v.attempts) for v in result.verdicts] == [("waiting", 0)]
        assert broker.letters_asked_for() == []

    def test_what_was_handed_out_before_is_given_again_when_its_answer_was_lost(self) -> None:
        broker = Flooded()
        broker.commit(5, failed=[failure(3)], retry=POLICY)
        broker.pass_time(100)
        assert broker.given(poll=7) == [(0, 3, 2)]
        broker.flood(begin=5)
        assert broker.given(poll=7) == [(0, 3, 2)]
        assert broker.given(poll=8) == []

    def test_a_restart_begins_closed(self) -> None:
        broker = Flooded()
        broker.flood()
        broker.restart()
        assert broker.state == "closed"

    def test_a_few_failures_among_successes_change_nothing(self) -> None:
        broker = Flooded()
        for begin in range(0, 900, 100):
            assert not broker.commit(begin + 100, failed=[failure(begin + n) for n in range(5)], retry=POLICY).full
        assert broker.state == "closed"

    def test_a_slow_record_at_the_front_does_not_make_the_others_look_like_failures(self) -> None:
        broker = Flooded()
        # Offset 0 is being handled for minutes; of what was handed out behind it, one in ten fails and is reported at once.
        for offset in range(10, 900, 10):
            broker.commit(failed=[failure(offset)], retry=POLICY)
        assert broker.state == "closed"

    def test_a_commit_sent_again_is_not_counted_twice(self) -> None:
        broker = Flooded()
        for _ in range(5):
            broker.commit(20, failed=[failure(n, attempt=1) for n in range(12)], retry=POLICY)
        assert broker.state == "closed"


class TestHalfOpen:
    def test_it_is_said_when_the_pause_is_over(self) -> None:
        broker = Flooded()
        broker.flood()
        assert broker.coordinator.next_deadline_ms() == broker.now.monotonic_ms + OPEN_MS
        broker.effects.clear()
        broker.pass_time(OPEN_MS)
        assert broker.effects == [RetriesChanged("g", answer=True)]

    def test_one_retry_is_the_probe_and_everything_else_is_held(self) -> None:
        broker = half_open()
        [probe] = broker.given()
        assert probe == (0, 20, 1), "the one that has been due longest"
        assert broker.given() == []
        assert broker.held() == {0, 1}
        assert broker.held("isolated") == set()

    def test_the_probe_is_given_again_when_its_answer_was_lost(self) -> None:
        broker = half_open()
        first = broker.given(poll=9)
        assert broker.given(poll=9) == first
        assert broker.given(poll=10) == []

    def test_probes_that_succeed_close_it_and_retries_come_a_few_at_a_time(self) -> None:
        broker = half_open()
        for _ in range(3):
            [(_, offset, _)] = broker.given()
            result = broker.commit(done=[offset])
        assert broker.state == "closed"
        assert not result.full
        assert len(broker.given()) == 5
        assert broker.given() == []
        assert broker.next_due_ms() == broker.now.wall_ms + 1_000
        broker.pass_time(1_000)
        assert len(broker.given()) == 5
        broker.pass_time(10_000)
        assert len(broker.given()) > 20

    def test_a_probe_that_fails_spends_nothing_and_pauses_for_longer(self) -> None:
        broker = half_open()
        before = broker.attempts()
        [(_, offset, _)] = broker.given()
        broker.commit(failed=[failure(offset)], retry=POLICY)
        assert broker.state == "open"
        assert broker.attempts() == before
        broker.pass_time(2 * OPEN_MS - 1)
        assert broker.state == "open"
        broker.pass_time(1)
        assert broker.state == "half_open"

    def test_after_a_failed_retry_the_next_probe_is_a_new_record_of_one_partition(self) -> None:
        broker = half_open()
        [(_, offset, _)] = broker.given()
        broker.commit(failed=[failure(offset)], retry=POLICY)
        broker.pass_time(2 * OPEN_MS)

        assert broker.given() == []
        assert broker.held() == {1}, "partition 0 is open for one at a time"
        assert broker.held("isolated") == {0}
        tried = attempt(broker, 60)
        assert (tried.full, tried.isolated) == (False, True)
        for offset in (61, 62):
            assert attempt(broker, offset).isolated
        assert broker.state == "half_open"
        assert not broker.commit(63).isolated
        assert broker.state == "closed"

    def test_bad_records_at_the_end_of_everything_spend_their_attempts_once_the_pauses_are_the_longest(self) -> None:
        broker = half_open()
        broker.logs.topics["t"] = [60, 0]
        spent, pauses, poll = [], [OPEN_MS], 0
        while not broker.letters_asked_for():
            poll += 1
            assert poll < 300, "they never end"
            ((partition, offset, attempt),) = broker.given(poll=poll)
            result = broker.commit(failed=[failure(offset, attempt=attempt)], retry=POLICY, partition=partition)
            spent.append(result.verdicts[0].attempts - (attempt - 1))
            if not broker.letters_asked_for():
                assert broker.state == "open"
                pauses.append(broker.coordinator.describe("g", broker.now).breaker.retry_in_ms)
                broker.pass_time(pauses[-1])
        assert pauses[:5] == [5_000, 10_000, 20_000, 40_000, 60_000]
        assert spent[:4] == [0, 0, 0, 0], "a short outage costs nothing"
        assert all(spent[4:])

    def test_they_spend_nothing_while_there_is_a_record_that_nobody_has_tried(self) -> None:
        broker = half_open()
        broker.logs.topics["t"] = [60, 1]
        for poll in range(1, 20):
            ((_, offset, attempt),) = broker.given([0], poll=poll) or [(0, -1, 0)]
            if offset >= 0:
                result = broker.commit(failed=[failure(offset, attempt=attempt)], retry=POLICY)
                assert result.verdicts[0].attempts == attempt - 1
            broker.pass_time(60_000)
        assert broker.letters_asked_for() == []

    def test_a_new_record_that_fails_pauses_again_and_is_kept(self) -> None:
        broker = half_open()
        [(_, offset, _)] = broker.given()
        broker.commit(failed=[failure(offset)], retry=POLICY)
        broker.pass_time(2 * OPEN_MS)
        assert broker.held("isolated") == {0}
        attempt(broker, 60)
        result = broker.commit(61, failed=[failure(60)], retry=POLICY)
        assert (result.full, result.isolated) == (True, False)
        assert [(v.state, v.attempts) for v in result.verdicts] == [("waiting", 0)]

    def test_a_probe_whose_consumer_is_gone_goes_to_the_next(self) -> None:
        broker = half_open()
        assert broker.given(poll=5) == [(0, 20, 1)]
        assert broker.given(poll=1) == [(0, 20, 1)], "a first poll is that of a successor"

    def test_without_failures_that_wait_it_is_a_new_record(self) -> None:
        broker = Flooded()
        broker.commit(60, failed=[failure(n) for n in range(60)], retry=RetryPolicy(max_attempts=1, on_exhausted="discard"))
        for offset in broker.given():
            broker.commit(done=[offset])
        waiting = [entry.offset for entry in broker.offsets().outstanding]
        broker.commit(done=waiting)
        broker.pass_time(OPEN_MS)
        assert broker.held("isolated") == {0}

    def test_with_nothing_left_to_probe_it_waits_for_what_comes(self) -> None:
        broker = Flooded()
        broker.logs.topics["t"] = [60, 0]
        broker.flood()
        broker.commit(done=[entry.offset for entry in broker.offsets().outstanding])
        broker.pass_time(OPEN_MS)
        assert broker.held() == {0, 1}
        assert broker.held("isolated") == set()
        broker.logs.topics["t"][1] = 10
        assert broker.held("isolated") == {1}

    def test_a_late_success_from_before_the_pause_is_no_probe(self) -> None:
        broker = half_open()
        broker.given()
        for offset in range(100, 110):
            broker.commit(offset, partition=1)
        assert broker.state == "half_open"


def test_switching_it_off_ends_a_pause() -> None:
    broker = Flooded()
    broker.flood()
    broker.handle(ConfigureGroup("g", enabled=False))
    assert broker.state == "off"
    assert not broker.offsets(1).full
    assert not broker.flood(begin=60).full


def attempt(broker: Flooded, offset: int) -> CommitResult:
    """Say that this new record is tried next; all before it was handled."""
    reply = broker.handle(Commit("g", "", NO_MEMBER_EPOCH, [CommitPartition("t", 0, offset, attempting=offset)])).reply
    assert isinstance(reply, CommitReply)
    return reply.results[0]
