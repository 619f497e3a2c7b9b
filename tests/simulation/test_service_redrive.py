"""Redriving in the whole broker: exactly once for a crash at every disk operation, from copies, in time, and no further."""

from collections.abc import Iterable, Sequence

import pytest

from logsvc.testing.simulated_disk import Operation, SimulatedCrash
from logsvc_common.batch import RecordData, decode, encode, split
from logsvc_common.errors import LogsvcError, StorageFailed
from logsvc_common.letters import Letter, parse_letter
from logsvc_common.messages import (
    CancelRedrive,
    CancelRedriveReply,
    Commit,
    CommitPartition,
    CommitReply,
    CreateTopic,
    DeleteTopic,
    DescribeGroup,
    DescribeGroupReply,
    Failure,
    FetchOffsetsPartition,
    FetchRetries,
    FetchRetriesReply,
    ListRedrives,
    ListRedrivesReply,
    Produce,
    ProducePartition,
    Redrive,
    RedriveFilter,
    StartRedrive,
    StartRedriveReply,
    TrimTopic,
)
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService

TOPIC, GROUP, LETTERS = "orders", "billing", "dlq.orders.billing"
ONCE = RetryPolicy(max_attempts=1)
RECORDS = 8
STRETCH = 100  # read and committed together: with few enough failures not to be taken for a flood
FAILED = (1, 2, 4, 5, 7)


def with_letters(seed: int, *, records: int = RECORDS, failed: Sequence[int] = FAILED, partitions: int = 1) -> SimulatedService:
    """A group that has read everything, and whose failures are dead letters: in each partition the same."""
    service = SimulatedService(seed)
    service.ask(CreateTopic(TOPIC, partitions))
    for partition in range(partitions):
        made = [
            RecordData(b"value %d" % n, b"key %d" % (n % 3), 1_000 + n, [("trace", b"%d" % n), ("none", None)])
            for n in range(records)
        ]
        service.ask(Produce([ProducePartition(TOPIC, partition)]), [encode(made)])
    for partition in range(partitions):
        for first in range(0, records, STRETCH):
            stretch = range(first, min(first + STRETCH, records))
            fail(service, [n for n in failed if n in stretch], partition=partition, offset=stretch.stop)
    return service


def fail(service: SimulatedService, offsets: Iterable[int], *, partition: int = 0, offset: int = -1, error: str = "") -> None:
    """Spend the only attempt of these records, and wait for their letters."""
    failures = [Failure(n, error or f"error {n}", "app.Odd" if n % 2 else "app.Even", "trace") for n in offsets]
    reply, _ = service.ask(Commit(GROUP, "", -1, [CommitPartition(TOPIC, partition, offset, failures)], ONCE))
    assert isinstance(reply, CommitReply)
    assert reply.results[0].error_code == 0
    assert [verdict.state for verdict in reply.results[0].verdicts] == ["dead_lettered"] * len(failures)
    service.time.run(lambda: "dead_lettering" not in outstanding(service))


def outstanding(service: SimulatedService) -> dict[str, int]:
    """Unfinished failures of the group by state."""
    reply, _ = service.ask(DescribeGroup(GROUP))
    assert isinstance(reply, DescribeGroupReply)
    counts: dict[str, int] = {}
    for part in reply.partitions:
        for state, count in part.failed.items():
            counts[state] = counts.get(state, 0) + count
    return counts


def letters(service: SimulatedService, partition: int = 0) -> list[Letter]:
    log = service.logs.topics[LETTERS].partitions[partition]
    data = log.read(log.start_offset, 8 << 20, up_to=log.end_offset)
    return [parse_letter(r.offset, r.timestamp, r.key, r.value, r.headers) for _, batch in split(data) for r in decode(batch)]


def start(service: SimulatedService, where: RedriveFilter | None = None, **fields: object) -> Redrive:
    reply, _ = service.ask(StartRedrive(GROUP, TOPIC, where or RedriveFilter(), **fields))  # type: ignore[arg-type]
    assert isinstance(reply, StartRedriveReply)
    return reply.redrive


def redrive(service: SimulatedService, redrive_id: int) -> Redrive:
    reply, _ = service.ask(ListRedrives())
    assert isinstance(reply, ListRedrivesReply)
    return next(found for found in reply.redrives if found.redrive_id == redrive_id)


def finished(service: SimulatedService, redrive_id: int) -> Redrive:
    service.time.run(lambda: redrive(service, redrive_id).state == "done")
    return redrive(service, redrive_id)


def run_redrive(service: SimulatedService, where: RedriveFilter | None = None, **fields: object) -> Redrive:
    return finished(service, start(service, where, **fields).redrive_id)


def due(service: SimulatedService, partition: int = 0) -> dict[int, RecordData]:
    """What the group is handed now, by offset; a new consumer each time, so that hand-outs without a verdict come again."""
    found: dict[int, RecordData] = {}
    poll = 1
    while True:
        wanted = [FetchOffsetsPartition(TOPIC, partition)]
        reply, payload = service.ask(FetchRetries(GROUP, "", -1, wanted, 0, 500, poll))
        assert isinstance(reply, FetchRetriesReply)
        if not reply.results:
            return found
        poll += 1
        handed = {record.offset for record in reply.results[0].records}
        for _, batch in split(payload[0]):
            for record in decode(batch):
                if record.offset in handed:
                    data = RecordData(record.value, record.key, record.timestamp, record.headers)
                    assert found.setdefault(record.offset, data) == data
        done(service, handed, partition)


def done(service: SimulatedService, offsets: Iterable[int], partition: int = 0) -> None:
    service.ask(Commit(GROUP, "", -1, [CommitPartition(TOPIC, partition, done=sorted(offsets))]))


def original(n: int) -> RecordData:
    return RecordData(b"value %d" % n, b"key %d" % (n % 3), 1_000 + n, [("trace", b"%d" % n), ("none", None)])


class TestACrashAtEveryOperation:
    """Five letters at five a second: a step for each. The consumer handles what it is handed meanwhile."""

    ASK = StartRedrive(GROUP, TOPIC, rate_per_s=5, token="same")

    def life(self, service: SimulatedService, finished: set[int]) -> None:
        """Start, handle what comes until all is done. `finished` has the records whose end was acknowledged."""
        reply, _ = service.ask(self.ASK)
        assert isinstance(reply, StartRedriveReply)
        redrive_id = reply.redrive.redrive_id
        while True:
            over = redrive(service, redrive_id).state == "done"
            wanted = [FetchOffsetsPartition(TOPIC, 0)]
            retries, payload = service.ask(FetchRetries(GROUP, "", -1, wanted, 100, 500, 1))
            assert isinstance(retries, FetchRetriesReply)
            handed = {record.offset for found in retries.results for record in found.records}
            assert not handed & finished, "a record came again after it was done"
            if handed:
                assert handed <= {record.offset for _, batch in split(payload[0]) for record in decode(batch)}
                done(service, handed)
                finished |= handed
            elif over:
                return

    @pytest.mark.parametrize("death", ["kill", "power_cut"])
    def test_each_letter_is_redriven_exactly_once(self, death: str) -> None:
        service = with_letters(seed=1)
        before = service.disk.operations
        self.life(service, set())
        count = service.disk.operations - before
        assert count > 20, "the redrive does too little to be the real one"
        print(f"crash points: {count}, each by {death}")

        for point in range(1, count + 1):
            service = with_letters(seed=point)
            last = service.disk.operations + point

            def stop(operation: Operation, last: int = last) -> None:
                if operation.number >= last:
                    raise SimulatedCrash

            service.disk.hook = stop
            ended: set[int] = set()
            with pytest.raises(SimulatedCrash):
                self.life(service, ended)
            service.disk.hook = None
            reborn = service.kill() if death == "kill" else service.power_cut(ordered=True)
            # The answer may never have come, so the person asks again.
            again = set(ended)
            self.life(reborn, again)

            where = f"after a {death} at operation {point}"
            # What was done but not acknowledged may have been recorded: then it does not come again, and rightly so.
            assert again | ended <= set(FAILED), where
            [found] = [each for each in self.listed(reborn) if each.state == "done"]
            assert (found.redriven, found.matched, found.skipped) == (len(FAILED), len(FAILED), 0), where
            assert outstanding(reborn) == {}, where
            assert run_redrive(reborn).redriven == 0, where
            assert due(reborn) == {}, where

    def listed(self, service: SimulatedService) -> list[Redrive]:
        reply, _ = service.ask(ListRedrives(GROUP))
        assert isinstance(reply, ListRedrivesReply)
        return reply.redrives


def test_a_redriven_record_is_handed_out_as_its_producer_sent_it() -> None:
    service = with_letters(seed=2)
    assert run_redrive(service).redriven == len(FAILED)
    assert service.metrics.group(GROUP, TOPIC).redriven.value == len(FAILED)
    assert due(service) == {n: original(n) for n in FAILED}


def test_the_letters_copy_stands_in_for_an_original_that_retention_has_removed() -> None:
    service = with_letters(seed=3)
    service.ask(TrimTopic(TOPIC, 0, RECORDS))
    run_redrive(service)
    assert due(service) == {n: original(n) for n in FAILED}


def test_the_original_stands_in_for_a_letter_that_is_gone() -> None:
    service = with_letters(seed=4)
    run_redrive(service)
    service.ask(TrimTopic(LETTERS, 0, 3))
    assert due(service) == {n: original(n) for n in FAILED}


@pytest.mark.parametrize("original_is_there", [True, False])
def test_a_redriven_record_that_fails_again_becomes_a_new_letter_that_says_so(original_is_there: bool) -> None:
    service = with_letters(seed=5, failed=(4,))
    for times in (1, 2, 3):
        if not original_is_there:
            service.ask(TrimTopic(TOPIC, 0, RECORDS))
        run_redrive(service)
        assert outstanding(service) == {"waiting": 1}
        service.ask(FetchRetries(GROUP, "", -1, [FetchOffsetsPartition(TOPIC, 0)], 0, 500, times))
        fail(service, [4], error=f"failure {times}")
        newest = letters(service)[-1]
        assert len(letters(service)) == times + 1
        assert (newest.redrives, newest.error, newest.attempts) == (times, f"failure {times}", 1)
        assert (newest.key, newest.value, newest.timestamp_ms) == (b"key 1", b"value 4", 1_004)
        assert newest.headers == (("trace", b"4"), ("none", None))
        assert newest.missing is None
        assert newest.first_failure_ms == letters(service)[0].first_failure_ms
    assert run_redrive(service, RedriveFilter(redrives=[(0, 2)])).matched == 0
    assert run_redrive(service, RedriveFilter(redrives=[(3, 3)])).redriven == 1


def test_a_redrive_ends_although_its_records_fail_again_at_once() -> None:
    service = with_letters(seed=6, failed=(4,))
    for _ in range(3):
        assert run_redrive(service).redriven == 1
        service.ask(FetchRetries(GROUP, "", -1, [FetchOffsetsPartition(TOPIC, 0)], 0, 500, 1))
        fail(service, [4])


@pytest.mark.parametrize(
    ("where", "offsets"),
    [
        (RedriveFilter(), FAILED),
        (RedriveFilter(exception_classes=["Odd"]), (1, 5, 7)),
        (RedriveFilter(exception_classes=["app.Even"], offsets=[(0, 2)]), (2,)),
        (RedriveFilter(error_contains=["ERROR 4", "error 7"]), (4, 7)),
        (RedriveFilter(error_is=["error 5"]), (5,)),
        (RedriveFilter(letters=[(0, 1), (4, 9)]), (1, 2, 7)),
        (RedriveFilter(partitions=[3]), ()),
        (RedriveFilter(until_ms=1), ()),
    ],
)
def test_a_filter_takes_its_letters_and_no_others(where: RedriveFilter, offsets: tuple[int, ...]) -> None:
    service = with_letters(seed=7)
    preview = run_redrive(service, where, dry_run=True)
    assert (preview.matched, preview.redriven, preview.total) == (len(offsets), 0, len(FAILED))
    assert run_redrive(service, where).redriven == len(offsets)
    assert set(due(service)) == set(offsets)


def test_a_dry_run_changes_nothing() -> None:
    service = with_letters(seed=8)
    state = list(service.broker.groups._coordinator.snapshot())
    kinds: set[str] = set()
    service.disk.hook = lambda operation: kinds.add(operation.kind)
    assert run_redrive(service, dry_run=True).matched == len(FAILED)
    assert list(service.broker.groups._coordinator.snapshot()) == state
    assert "write" not in kinds
    assert due(service) == {}
    assert run_redrive(service).redriven == len(FAILED)


def test_a_limit_is_kept_and_the_next_redrive_goes_on_from_there() -> None:
    service = with_letters(seed=9)
    assert run_redrive(service, limit=2).redriven == 2
    assert set(due(service)) == {1, 2}
    assert run_redrive(service, limit=2).redriven == 2
    assert set(due(service)) == {4, 5}
    assert run_redrive(service, limit=2).redriven == 1
    assert set(due(service)) == {7}


@pytest.mark.parametrize("rate_per_s", [1, 7, 50, 1_000])
def test_a_rate_is_kept(rate_per_s: int) -> None:
    service = with_letters(seed=10, records=1_000, failed=range(0, 1_000, 10))
    began_ms = service.time.now_ms
    redrive_id = start(service, rate_per_s=rate_per_s).redrive_id
    found = redrive(service, redrive_id)
    while found.state == "running":
        service.time.run(lambda found=found: redrive(service, redrive_id) != found)  # type: ignore[misc]
        found = redrive(service, redrive_id)
        passed_ms = service.time.now_ms - began_ms
        slice_of_rate = max(1, rate_per_s // 5)
        assert found.redriven <= passed_ms * rate_per_s / 1_000 + slice_of_rate
    assert found.redriven == 100
    assert service.time.now_ms - began_ms <= 100 / rate_per_s * 1_000 * 1.3 + 100


def test_cancelling_leaves_the_rest_for_the_next_one() -> None:
    service = with_letters(seed=11)
    redrive_id = start(service, rate_per_s=1).redrive_id
    service.time.run(lambda: redrive(service, redrive_id).redriven >= 2)
    reply, _ = service.ask(CancelRedrive(redrive_id))
    assert isinstance(reply, CancelRedriveReply)
    assert (reply.redrive.state, reply.redrive.redriven) == ("cancelled", 2)
    again, _ = service.ask(CancelRedrive(redrive_id))
    assert again == reply

    reborn = service.power_cut(ordered=True)
    assert redrive(reborn, redrive_id).state == "cancelled"
    assert set(due(reborn)) == {1, 2}
    assert run_redrive(reborn).redriven == 3
    assert set(due(reborn)) == {4, 5, 7}
    assert run_redrive(reborn).redriven == 0


def test_a_redrive_goes_on_after_a_restart() -> None:
    service = with_letters(seed=12)
    redrive_id = start(service, rate_per_s=1).redrive_id
    service.time.run(lambda: redrive(service, redrive_id).redriven >= 2)
    reborn = service.kill()
    assert finished(reborn, redrive_id).redriven == len(FAILED)
    assert set(due(reborn)) == set(FAILED)


def test_the_same_request_twice_is_one_redrive() -> None:
    service = with_letters(seed=13)
    first = start(service, limit=2, token="t")
    assert start(service, limit=2, token="t").redrive_id == first.redrive_id
    finished(service, first.redrive_id)
    assert start(service, limit=2, token="t").state == "done"
    assert len(due(service)) == 2


def test_a_redrive_waits_until_a_letter_is_completed() -> None:
    """The letter is there, but the state log cannot say so: putting the record back now would end in its completion."""
    service = with_letters(seed=14, failed=(1,))
    service.broker.groups._letter_written = lambda *_: None  # type: ignore[method-assign, assignment]
    service.ask(Commit("audit", "", -1, [CommitPartition(TOPIC, 0, RECORDS, [Failure(3, "no")])], ONCE))
    topics = service.logs.topics
    service.time.run(lambda: "dlq.orders.audit" in topics and topics["dlq.orders.audit"].partitions[0].high_watermark == 1)
    reply, _ = service.ask(StartRedrive("audit", TOPIC))
    assert isinstance(reply, StartRedriveReply)
    redrive_id = reply.redrive.redrive_id
    service.time.run(lambda: redrive(service, redrive_id).waiting != "")
    assert redrive(service, redrive_id).redriven == 0

    reborn = service.kill()  # which looks for the letter, finds it, and completes it
    assert finished(reborn, redrive_id).redriven == 1


def test_partitions_take_turns() -> None:
    service = with_letters(seed=15, partitions=3)
    found = run_redrive(service)
    assert (found.total, found.scanned, found.redriven) == (15, 15, 15)
    for partition in range(3):
        assert set(due(service, partition)) == set(FAILED)


def test_records_that_anyone_else_put_there_are_left_alone() -> None:
    service = with_letters(seed=16, failed=(1,))
    headers = [("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"0"), ("__dlq.errors.offset", b"99")]
    strange = [
        RecordData(b"plain"),
        RecordData(b"no group", headers=headers),
        RecordData(b"not ours", headers=[*headers, ("__dlq.errors.group", b"other")]),
        RecordData(b"not read", headers=[*headers, ("__dlq.errors.group", b"billing")]),
    ]
    service.ask(Produce([ProducePartition(LETTERS, 0)]), [encode(strange)])
    found = run_redrive(service)
    assert (found.total, found.matched, found.redriven, found.skipped) == (5, 2, 1, 1)
    assert set(due(service)) == {1}


def test_a_full_disk_only_delays_a_redrive() -> None:
    service = with_letters(seed=17)
    service.disk.fail("write", path_part="__logsvc_groups", nth=2, error=28)
    assert run_redrive(service).redriven == len(FAILED)
    assert set(due(service)) == set(FAILED)


def test_deleting_the_dead_letters_ends_their_redrive() -> None:
    service = with_letters(seed=18)
    redrive_id = start(service, rate_per_s=1).redrive_id
    service.time.run(lambda: redrive(service, redrive_id).redriven >= 1)
    service.ask(DeleteTopic(LETTERS))
    reply, _ = service.ask(ListRedrives())
    assert reply == ListRedrivesReply([], [])
    with pytest.raises(LogsvcError):
        start(service)
    # What was put back comes from the topic itself now.
    assert due(service) == {1: original(1)}


def test_a_redrive_of_letters_that_cannot_be_read_is_refused_and_not_done_at_once() -> None:
    service = with_letters(seed=31)
    service.logs.close()
    service.disk.fail("listdir", path_part=LETTERS)
    half_blind = SimulatedService(32, service.disk, service.time)
    with pytest.raises(StorageFailed):
        start(half_blind)
    assert run_redrive(half_blind.kill()).redriven == len(FAILED)
