"""Groups under everything that may happen to them: see `group_world` for who does what and what must hold."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from logsvc_common.messages import ConfigureGroup
from logsvc_common.retry import RetryPolicy
from tests.property.group_world import PARTITIONS, SESSION_MS, Client, World
from tests.property.late_commits import LateCommits

names = st.sampled_from(["a", "b", "c"])
partitions = st.integers(0, PARTITIONS - 1)
seldom = st.integers(0, 5).map(lambda number: number == 0)
fates = st.integers(0, 7).map(lambda bits: lambda offset: bool(bits >> (offset % 3) & 1))


class GroupMachine(RuleBasedStateMachine):
    replay_checked_every = 10  # events

    @initialize(
        ordering=st.sampled_from(["key", "key", "partition", "none"]),
        on_exhausted=st.sampled_from(["dead-letter", "dead-letter", "discard"]),
        attempts=st.integers(1, 3),
        members=st.integers(1, 3),
        nervous=st.booleans(),
        by_a_newcomer=st.booleans(),
    )
    def start(self, ordering: str, on_exhausted: str, attempts: int, members: int, nervous: bool, by_a_newcomer: bool) -> None:
        self.by_a_newcomer = by_a_newcomer
        self.world = World(
            RetryPolicy(max_attempts=attempts, initial_ms=500, max_ms=2_000, ordering=ordering, on_exhausted=on_exhausted)
        )
        self.late = LateCommits(self.world)
        self.world.broker.replay_checked_every = self.replay_checked_every
        if nervous:  # a breaker that opens at what fails in a small world
            self.world.broker.handle(ConfigureGroup("g", min_failures=3, open_ms=1_000, open_max_ms=4_000))
        for partition in range(PARTITIONS):
            self.world.produce(partition, 6)
        for name in "abc"[:members]:
            self.world.client(name)
        for _ in range(members):
            self.beat_all()

    def beat_all(self) -> None:
        for client in [client for client in self.world.clients.values() if not client.gone]:
            self.world.heartbeat(client)
            self.world.reconcile(client)

    def at_work(self, name: str, partition: int) -> tuple[Client, int]:
        """A client and a partition it holds: the one named, or else one that holds something.

        Drawn freely, nine in ten would hold nothing, and hardly anything would ever be handled or fail.
        """
        named = self.world.client(name)
        present = [client for client in self.world.clients.values() if client.readings and not client.gone]
        client = named if named.readings or not present else present[0]
        held = sorted(client.readings)
        return client, held[partition % len(held)] if held else partition

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
        self.world.read(*self.at_work(name, partition), count, fails, ahead=ahead, lost=lost)

    @rule(name=names, partition=partitions, fails=fates, lost_poll=seldom, lost=seldom)
    def retry(self, name: str, partition: int, fails, lost_poll: bool, lost: bool) -> None:  # type: ignore[no-untyped-def]
        self.world.retry(*self.at_work(name, partition), fails, lost_poll=lost_poll, lost=lost)

    @rule(name=names, partition=partitions, count=st.integers(1, 6), fails=fates, tries=st.integers(1, 3))
    def work(self, name: str, partition: int, count: int, fails, tries: int) -> None:  # type: ignore[no-untyped-def]
        """Nothing goes wrong but the records: they are read, and those that fail are tried again when they are due."""
        client, partition = self.at_work(name, partition)
        self.world.read(client, partition, count, fails, ahead=False, lost=False)
        for _ in range(tries):
            self.beat(1_500)
            self.world.retry(client, partition, fails, lost_poll=False, lost=False)

    @rule(name=names, lost=seldom)
    def resend(self, name: str, lost: bool) -> None:
        self.world.resend(self.world.client(name), lost=lost)

    @rule(name=names, partition=partitions, meanwhile=st.sampled_from(["more", "move", "stop", "rejoin"]), held=seldom)
    def overtake_a_commit(self, name: str, partition: int, meanwhile: str, held: bool) -> None:
        """A copy of a commit comes after what happened meanwhile, or some time later."""
        client, partition = self.at_work(name, partition)
        self.world.produce(partition, 4)
        self.world.read(client, partition, 2, lambda _: False, ahead=False, lost=False)
        self.late.hold_back(client, partition)
        if meanwhile == "more":
            self.world.read(client, partition, 2, lambda _: False, ahead=False, lost=False)
        elif meanwhile == "move":
            for newcomer in "abc":
                self.world.client(newcomer)
        elif meanwhile == "stop":
            self.world.pass_time(SESSION_MS + 100)
        else:
            client.drop_everything()
        if meanwhile != "more":
            self.beat_all()
            self.beat_all()
        if not held:
            self.late.arrive(-1)

    @rule(which=st.integers(0, 3))
    def late_commit(self, which: int) -> None:
        self.late.arrive(which)

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.world.leave(self.world.client(name))

    @rule(name=names)
    def vanish(self, name: str) -> None:
        self.world.client(name).gone = True

    @rule(name=names, partition=partitions)
    def die(self, name: str, partition: int) -> None:
        self.world.die(*self.at_work(name, partition))

    @rule(name=names)
    def start_over(self, name: str) -> None:
        self.world.client(name).drop_everything()

    @rule(ms=st.sampled_from([1, 400, 600, 1_500, 3_100]))
    def pass_time(self, ms: int) -> None:
        self.world.pass_time(ms)

    @rule(ms=st.sampled_from([300, 700, 1_500]))
    def beat(self, ms: int) -> None:
        self.world.pass_time(ms)
        self.beat_all()

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
EXAMPLES = 5_000
SHARES = 4  # so that they run side by side


@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", range(SHARES))
def test_groups_keep_their_promises(share: int) -> None:
    short = settings(max_examples=EXAMPLES // SHARES, stateful_step_count=16, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(GroupMachine, settings=short)


class WatchedGroupMachine(GroupMachine):
    replay_checked_every = 1


def test_groups_keep_their_promises_in_longer_stories_compared_with_a_replay_after_every_event() -> None:
    deep = settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(WatchedGroupMachine, settings=deep)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_groups_keep_their_promises_for_long() -> None:
    longest = settings(max_examples=EXAMPLES, stateful_step_count=60, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(WatchedGroupMachine, settings=longest)
