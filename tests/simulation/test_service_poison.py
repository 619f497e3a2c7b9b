"""A record that kills its consumer ends in the dead letters, and the group goes on, with nobody called."""

import pytest

from logsvc_common.batch import RawRecord
from logsvc_common.messages import DescribeGroup, DescribeGroupReply
from logsvc_common.retry import RetryPolicy
from tests.simulation.service import SimulatedService
from tests.simulation.workers import SESSION_MS, Died, HandlerError, Worker, letters, produce, sleep

RECORDS = 10_000


class Supervisor:
    """Starts a worker, and another one when it has died, as often as it takes."""

    def __init__(self, service: SimulatedService, retry: RetryPolicy, pills: set[tuple[int, int]], **settings: object) -> None:
        self.service, self.retry, self.pills, self.settings = service, retry, pills, settings
        self.deaths = 0
        self.handled: dict[tuple[int, int], int] = {}
        self.order: dict[tuple[int, bytes], list[int]] = {}
        self.worker = self.start()

    def start(self) -> Worker:
        name = f"worker-{self.deaths}"
        return Worker(self.service, name, self.handle, retry=self.retry, **self.settings)  # type: ignore[arg-type]

    def handle(self, partition: int, record: RawRecord) -> None:
        place = (partition, record.offset)
        if place in self.pills:
            self.deaths += 1
            raise Died
        self.handled[place] = self.handled.get(place, 0) + 1

    def run(self, until: int, *, restart_ms: int = 500, limit_ms: int = 600_000) -> None:
        """Until `until` records are handled and nothing is due any more."""
        end_ms = self.service.time.now_ms + limit_ms
        while len(self.handled) < until or self.open_failures():
            assert self.service.time.now_ms < end_ms, f"{len(self.handled)} handled, {self.deaths} deaths"
            try:
                worked = self.worker.step()
            except Died:
                sleep(self.service, restart_ms)
                self.worker = self.start()
            else:
                if not worked:
                    sleep(self.service, 100)

    def describe(self) -> DescribeGroupReply:
        reply, _ = self.service.ask(DescribeGroup("g"))
        assert isinstance(reply, DescribeGroupReply)
        return reply

    def open_failures(self) -> bool:
        return any(partition.failed or partition.isolated for partition in self.describe().partitions)


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_a_pill_among_ten_thousand_records_costs_no_more_than_its_attempts(attempts: int) -> None:
    service = SimulatedService(seed=attempts)
    produce(service, "t", 1, RECORDS)
    retry = RetryPolicy(max_attempts=attempts, initial_ms=200, max_ms=1_000)
    supervisor = Supervisor(service, retry, {(0, 4_321)})

    supervisor.run(RECORDS - 1)
    print(f"{supervisor.deaths} deaths with {attempts} attempts")
    assert supervisor.deaths <= 2 + attempts
    assert letters(service, "t", "g") == [(0, 4_321)]
    assert len(supervisor.handled) == RECORDS - 1
    described = supervisor.describe()
    assert [(p.committed, p.failed, p.deaths, p.isolated) for p in described.partitions] == [(RECORDS, {}, 0, False)]


def test_a_pill_that_first_fails_and_then_kills_ends_too() -> None:
    service = SimulatedService(seed=11)
    produce(service, "t", 1, 600)
    retry = RetryPolicy(max_attempts=4, initial_ms=100, max_ms=500)
    supervisor = Supervisor(service, retry, set())
    tries = 0

    def handle(partition: int, record: RawRecord) -> None:
        nonlocal tries
        if record.offset != 77:
            return Supervisor.handle(supervisor, partition, record)
        tries += 1
        if tries == 1:
            raise HandlerError("not yet")
        supervisor.deaths += 1
        raise Died

    supervisor.handle = handle  # type: ignore[method-assign]
    supervisor.worker = supervisor.start()
    supervisor.run(599)
    # One attempt was spent by the exception: the retries are what it dies of, long after all else was handled.
    assert supervisor.deaths <= 2 + 3
    assert letters(service, "t", "g") == [(0, 77)]


def test_two_pills_of_one_key_keep_the_order_of_their_key() -> None:
    service = SimulatedService(seed=12)
    produce(service, "t", 1, 1_000, keys=7)
    retry = RetryPolicy(max_attempts=2, initial_ms=100, max_ms=500)
    supervisor = Supervisor(service, retry, {(0, 70), (0, 77)})
    order: list[int] = []
    handle = supervisor.handle

    def noting(partition: int, record: RawRecord) -> None:
        handle(partition, record)
        if record.offset % 7 == 0 and record.offset not in order:
            order.append(record.offset)

    supervisor.handle = noting  # type: ignore[method-assign]
    supervisor.worker = supervisor.start()
    supervisor.run(998)
    assert supervisor.deaths <= 2 * (2 + 2)
    assert letters(service, "t", "g") == [(0, 70), (0, 77)]
    assert order == [offset for offset in range(0, 1_000, 7) if offset not in (70, 77)]


def test_pills_in_some_partitions_leave_the_others_alone() -> None:
    service = SimulatedService(seed=13)
    produce(service, "t", 4, 500)
    retry = RetryPolicy(max_attempts=2, initial_ms=100, max_ms=500)
    supervisor = Supervisor(service, retry, {(1, 200), (3, 499)})
    supervisor.run(2_000 - 2)
    assert supervisor.deaths <= 2 * (2 + 2)
    assert letters(service, "t", "g") == [(1, 200), (3, 499)]


@pytest.mark.parametrize("death", ["kill", "power_cut"])
def test_a_broker_that_dies_too_forgets_neither_suspicion_nor_attempts(death: str) -> None:
    service = SimulatedService(seed=14)
    produce(service, "t", 1, 1_000)
    retry = RetryPolicy(max_attempts=3, initial_ms=100, max_ms=500)
    supervisor = Supervisor(service, retry, {(0, 400)})
    deaths = 0
    while len(supervisor.handled) < 999 or supervisor.open_failures():
        try:
            if not supervisor.worker.step():
                sleep(supervisor.service, 100)
        except Died:
            deaths += 1
            reborn = supervisor.service.kill() if death == "kill" else supervisor.service.power_cut()
            supervisor.service = reborn
            supervisor.worker = supervisor.start()
        assert deaths <= 2 + 3
    assert letters(supervisor.service, "t", "g") == [(0, 400)]


def test_a_static_worker_is_replaced_without_waiting_for_its_session() -> None:
    service = SimulatedService(seed=15)
    produce(service, "t", 1, 1_000)
    retry = RetryPolicy(max_attempts=3, initial_ms=100, max_ms=500)
    supervisor = Supervisor(service, retry, {(0, 400)}, instance_id="host-1")
    began_ms = service.time.now_ms
    supervisor.run(999, restart_ms=50)
    assert supervisor.deaths == 2 + 3
    assert service.time.now_ms - began_ms < SESSION_MS
    assert letters(service, "t", "g") == [(0, 400)]


def test_workers_that_leave_are_not_suspected() -> None:
    service = SimulatedService(seed=16)
    produce(service, "t", 1, 1_000)
    supervisor = Supervisor(service, RetryPolicy(), set(), batch=50)
    for _ in range(5):
        for _ in range(3):
            supervisor.worker.step()
        supervisor.worker.leave()
        supervisor.deaths += 1  # only a new name
        supervisor.worker = supervisor.start()
    assert [(p.deaths, p.isolated) for p in supervisor.describe().partitions] == [(0, False)]


def test_two_unlucky_deaths_cost_no_attempt_and_are_forgotten() -> None:
    service = SimulatedService(seed=17)
    produce(service, "t", 1, 2_000)
    supervisor = Supervisor(service, RetryPolicy(max_attempts=1), set())
    for _ in range(2):  # as by a machine that was switched off
        supervisor.worker.step()
        sleep(service, SESSION_MS + 1_000)
        supervisor.deaths += 1
        supervisor.worker = supervisor.start()
    supervisor.worker.step()
    assert [(p.deaths, p.isolated) for p in supervisor.describe().partitions] == [(2, True)]
    supervisor.run(2_000)
    assert letters(service, "t", "g") == []
    assert [(p.deaths, p.isolated) for p in supervisor.describe().partitions] == [(0, False)]


def test_a_broker_that_was_stopped_for_a_while_takes_nobody_for_dead() -> None:
    service = SimulatedService(seed=18)
    produce(service, "t", 1, 1_000)
    supervisor = Supervisor(service, RetryPolicy(), set(), batch=50)
    supervisor.worker.step()
    service.time.now_ms += 10 * SESSION_MS  # as by SIGSTOP and SIGCONT: the timers are late, the heartbeats too
    sleep(service, 1)
    assert len(supervisor.describe().members) == 1
    supervisor.run(1_000)
    assert [(p.deaths, p.isolated) for p in supervisor.describe().partitions] == [(0, False)]
    sleep(service, SESSION_MS + 1)
    assert supervisor.describe().members == []
