"""Groups under everything that may happen to them: see `group_world` for who does what and what must hold."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from logsvc_common.retry import RetryPolicy
from tests.property.group_world import PARTITIONS, World

names = st.sampled_from(["a", "b", "c"])
partitions = st.integers(0, PARTITIONS - 1)
seldom = st.integers(0, 5).map(lambda number: number == 0)
fates = st.integers(0, 7).map(lambda bits: lambda offset: bool(bits >> (offset % 3) & 1))


class GroupMachine(RuleBasedStateMachine):
    @initialize(
        ordering=st.sampled_from(["key", "key", "partition", "none"]),
        on_exhausted=st.sampled_from(["dead-letter", "dead-letter", "discard"]),
        attempts=st.integers(1, 3),
        by_a_newcomer=st.booleans(),
    )
    def start(self, ordering: str, on_exhausted: str, attempts: int, by_a_newcomer: bool) -> None:
        self.by_a_newcomer = by_a_newcomer
        self.world = World(
            RetryPolicy(max_attempts=attempts, initial_ms=500, max_ms=2_000, ordering=ordering, on_exhausted=on_exhausted)
        )
        for partition in range(PARTITIONS):
            self.world.produce(partition, 4)

    @rule(partition=partitions, records=st.integers(1, 6))
    def produce(self, partition: int, records: int) -> None:
        self.world.produce(partition, records)

    @rule(name=names, lost=seldom)
    def heartbeat(self, name: str, lost: bool) -> None:
        client = self.world.client(name)
        self.world.heartbeat(client, lost=lost)

    @rule(name=names)
    def settle(self, name: str) -> None:
        client = self.world.client(name)
        self.world.heartbeat(client)
        self.world.reconcile(client)

    @rule(name=names)
    def reconcile(self, name: str) -> None:
        self.world.reconcile(self.world.client(name))

    @rule(name=names, partition=partitions, count=st.integers(1, 6), fails=fates, ahead=seldom, lost=seldom)
    def read(self, name: str, partition: int, count: int, fails, ahead: bool, lost: bool) -> None:  # type: ignore[no-untyped-def]
        self.world.read(self.world.client(name), partition, count, fails, ahead=ahead, lost=lost)

    @rule(name=names, partition=partitions, fails=fates, lost_poll=seldom, lost=seldom)
    def retry(self, name: str, partition: int, fails, lost_poll: bool, lost: bool) -> None:  # type: ignore[no-untyped-def]
        self.world.retry(self.world.client(name), partition, fails, lost_poll=lost_poll, lost=lost)

    @rule(name=names, lost=seldom)
    def resend(self, name: str, lost: bool) -> None:
        self.world.resend(self.world.client(name), lost=lost)

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.world.leave(self.world.client(name))

    @rule(name=names)
    def vanish(self, name: str) -> None:
        self.world.client(name).gone = True

    @rule(name=names, partition=partitions)
    def die(self, name: str, partition: int) -> None:
        self.world.die(self.world.client(name), partition)

    @rule(name=names)
    def start_over(self, name: str) -> None:
        self.world.client(name).drop_everything()

    @rule(ms=st.sampled_from([1, 400, 600, 1_500, 3_100]))
    def pass_time(self, ms: int) -> None:
        self.world.pass_time(ms)

    @rule(ms=st.sampled_from([-3_600_000, -500, 500, 3_600_000]))
    def jump_clock(self, ms: int) -> None:
        self.world.jump_clock(ms)

    @rule(fails=seldom, reported=st.booleans())
    def write_letter(self, fails: bool, reported: bool) -> None:
        self.world.write_letter(fails, reported)

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @invariant()
    def letters_are_single(self) -> None:
        if hasattr(self, "world"):
            self.world.check_letters()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.drain(by_a_newcomer=self.by_a_newcomer)


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]


def test_groups_keep_their_promises() -> None:
    run_state_machine_as_test(
        GroupMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=CHECKS)
    )


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_groups_keep_their_promises_for_long() -> None:
    run_state_machine_as_test(
        GroupMachine, settings=settings(max_examples=5_000, stateful_step_count=60, deadline=None, suppress_health_check=CHECKS)
    )
