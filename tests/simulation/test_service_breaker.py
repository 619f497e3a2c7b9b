"""A downstream that dies for a while: the group pauses instead of draining its topic, and goes on by itself."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from logsvc.metrics import BrokerMetrics
from logsvc_common.batch import RawRecord
from logsvc_common.messages import DescribeGroup, DescribeGroupReply, ListGroups, ListGroupsReply
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService
from tests.simulation.workers import HandlerError, Worker, letters, produce, sleep

PARTITIONS = 4
RECORDS = 1_500  # in each
IDLE_MS = 400  # between two polls that were given nothing
Fails = Callable[[int, int, int], bool]  # virtual ms since the start, partition, offset


class Team:
    """Two workers that handle a topic; `fails` says which record cannot be handled when."""

    def __init__(self, service: SimulatedService, retry: RetryPolicy, fails: Fails, **settings: object) -> None:
        self.service, self.fails = service, fails
        self.began_ms = service.time.now_ms
        self.handled: dict[tuple[int, int], int] = {}
        self.outcomes: dict[tuple[int, bytes], list[int]] = {}
        self.failures = 0
        self.seen: list[tuple[int, str, int]] = []  # ms, breaker state, times opened
        self.workers = [
            Worker(service, name, self.handle, retry=retry, record_ms=1, **settings)  # type: ignore[arg-type]
            for name in ("a", "b")
        ]

    @property
    def ms(self) -> int:
        return self.service.time.now_ms - self.began_ms

    def handle(self, partition: int, record: RawRecord) -> None:
        if self.fails(self.ms, partition, record.offset):
            self.failures += 1
            raise HandlerError("downstream is away")
        place = (partition, record.offset)
        self.handled[place] = self.handled.get(place, 0) + 1
        self.outcomes.setdefault((partition, record.key or b""), []).append(record.offset)

    def describe(self) -> DescribeGroupReply:
        reply, _ = self.service.ask(DescribeGroup("g"))
        assert isinstance(reply, DescribeGroupReply)
        return reply

    def run(self, finished: Callable[[], bool], limit_ms: int = 3_600_000) -> None:
        for worker in self.workers:
            worker.step()
        while not finished():
            assert self.ms < limit_ms, f"{len(self.handled)} handled; {self.describe()}"
            worked = sum(worker.step() for worker in self.workers)
            breaker = self.describe().breaker
            self.seen.append((self.ms, breaker.state, breaker.opened))
            if not worked:
                sleep(self.service, IDLE_MS)

    def all_done(self) -> bool:
        described = self.describe()
        return len(described.partitions) == PARTITIONS and all(
            partition.committed == partition.end_offset and not partition.failed for partition in described.partitions
        )


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("outage", [(0, 120_000), (2_000, 90_000), (1_500, 600_000)])
def test_a_dead_downstream_leaves_hardly_a_dead_letter_and_everything_is_handled_in_the_end(
    attempts: int, outage: tuple[int, int]
) -> None:
    service = SimulatedService(seed=attempts)
    produce(service, "t", PARTITIONS, RECORDS)
    retry = RetryPolicy(max_attempts=attempts, initial_ms=500, max_ms=5_000)
    team = Team(service, retry, lambda ms, _partition, _offset: outage[0] <= ms < outage[1])

    team.run(team.all_done)
    dead = letters(service, "t", "g")
    print(f"outage {outage}, {attempts} attempts: {team.failures} failures, {len(dead)} letters, done after {team.ms} ms")
    assert len(dead) < PARTITIONS * RECORDS // 100
    assert attempts == 1 or dead == []
    assert len(team.handled) == PARTITIONS * RECORDS - len(dead)
    assert max(team.handled.values()) == 1
    assert all(offsets == sorted(offsets) for offsets in team.outcomes.values()), "keys keep their order"
    assert team.describe().breaker.state == "closed"
    # Hardly anything is tried while nothing can succeed: those in hand when it opened, then single probes.
    assert team.failures < 200 + outage[1] // 1_000
    # It was back at work within the longest pause and the probes after it.
    assert team.ms < outage[1] + 60_000 + 20_000


def test_the_pause_is_seen_in_describe_in_the_listing_and_in_the_metrics() -> None:
    service = SimulatedService(seed=21)
    produce(service, "t", PARTITIONS, 500)
    team = Team(service, RetryPolicy(), lambda ms, _partition, _offset: ms < 30_000)
    team.run(lambda: team.describe().breaker.state == "open")

    breaker = team.describe().breaker
    assert breaker.failures >= breaker.config.min_failures
    assert breaker.deliveries >= breaker.failures
    assert 0 < breaker.retry_in_ms <= breaker.config.open_ms
    assert listed_breaker(service) == "open"
    assert breaker_gauge(service) == 1.0

    team.run(team.all_done)
    assert team.describe().breaker.state == "closed"
    assert listed_breaker(service) == "closed"
    assert breaker_gauge(service) == 0.0
    states = {state for _, state, _ in team.seen}
    assert states == {"closed", "open", "half_open"}


def listed_breaker(service: SimulatedService) -> str:
    reply, _ = service.ask(ListGroups())
    assert isinstance(reply, ListGroupsReply)
    return reply.groups[0].breaker


def breaker_gauge(service: SimulatedService) -> float:
    lines = BrokerMetrics(source=service.broker.groups.samples).render()[0].decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith('logsvc_breaker_open{group="g"}')))


def test_pauses_grow_while_it_lasts_and_only_probes_are_handed_out() -> None:
    service = SimulatedService(seed=22)
    produce(service, "t", PARTITIONS, RECORDS)
    team = Team(service, RetryPolicy(), lambda _ms, _partition, _offset: True)
    team.run(lambda: team.ms > 300_000)

    opened = [next(ms for ms, _, count in team.seen if count == n) for n in range(1, team.describe().breaker.opened + 1)]
    pauses = [round((later - sooner) / 1_000) for sooner, later in pairwise(opened)]
    assert pauses[:6] == [5, 10, 20, 40, 60, 60]
    assert letters(service, "t", "g") == []


@pytest.mark.parametrize("ordering", ["key", "none"])
def test_a_run_of_bad_records_does_not_hold_the_group_for_good(ordering: str) -> None:
    service = SimulatedService(seed=23)
    produce(service, "t", PARTITIONS, 1_000)
    retry = RetryPolicy(max_attempts=3, initial_ms=200, max_ms=1_000, ordering=ordering)
    team = Team(service, retry, lambda _ms, partition, offset: partition == 1 and 300 <= offset < 400)

    team.run(team.all_done)
    dead = letters(service, "t", "g")
    assert sorted(dead) == [(1, offset) for offset in range(300, 400)]
    assert len(team.handled) == PARTITIONS * 1_000 - 100
    assert team.ms < 120_000


def test_a_broker_restart_finds_the_group_going_on_and_pauses_it_again() -> None:
    service = SimulatedService(seed=24)
    produce(service, "t", PARTITIONS, 500)
    team = Team(service, RetryPolicy(max_attempts=3), lambda ms, _partition, _offset: ms < 60_000)
    team.run(lambda: team.describe().breaker.state == "open")
    reborn = service.kill()
    team.service = reborn
    for worker in team.workers:
        worker.service = reborn
    assert team.describe().breaker.state == "closed"
    team.run(lambda: team.describe().breaker.state == "open")
    team.run(team.all_done)
    assert letters(reborn, "t", "g") == []
    assert len(team.handled) == PARTITIONS * 500


def test_a_tenth_of_failures_is_no_flood() -> None:
    service = SimulatedService(seed=25)
    produce(service, "t", PARTITIONS, 500)
    retry = RetryPolicy(max_attempts=2, initial_ms=100, max_ms=100)
    team = Team(service, retry, lambda _ms, _partition, offset: offset % 10 == 3)
    team.run(team.all_done)
    assert {state for _, state, _ in team.seen} == {"closed"}
    assert len(letters(service, "t", "g")) == PARTITIONS * 50
