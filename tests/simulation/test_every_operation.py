"""Every disk operation of a scripted day fails, once and forever, with each error, and the machine stops before and after it.

SQLite's loop over "the nth operation", for the whole service: `scripted_shop` is the day, `operation_faults` what goes wrong,
`shop_check` what must be true in the end. While something fails, answers are typed errors and the other partitions serve. On a
healthy disk everything acknowledged is there, no batch twice, and one dead letter for the record that failed.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from logsvc.storage.partition_log import PartitionState
from logsvc.testing.simulated_disk import Operation
from tests.simulation.operation_faults import MODES, Fault
from tests.simulation.scripted_shop import Shop
from tests.simulation.shop_check import check

pytestmark = pytest.mark.timeout(600)  # seconds, on a machine that does other work as well

SLICES = 4  # of each mode, so that several cores share them
OPERATIONS_MIN = 500  # the day would be too short to mean anything
PATIENCE_ROUNDS = 12  # after a fault, for clients to catch up where nothing keeps them from it


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Every fault is logged: tens of thousands of lines that nobody reads."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Day(NamedTuple):
    """A day on which nothing fails: its operations, and how many of them were of starts, recovery among them."""

    operations: tuple[Operation, ...]
    starting: int


@cache
def quiet_day() -> Day:
    seen: list[Operation] = []
    shop = Shop(seen.append)
    shop.day()
    assert not shop.refusals
    starting = sum(end - begin for begin, end in zip(shop.starts, shop.started, strict=True))
    shop.recover(power_cut=False)
    check(shop)
    return Day(tuple(seen), starting)


def operations() -> tuple[Operation, ...]:
    return quiet_day().operations


def in_doubt(fault: Fault) -> set[str]:
    """Clients that cannot be expected to get on while the fault lasts, by where it struck."""
    return {name for name in fault.shop.clients if fault.folder is None or concerns(fault.folder, name)}


def concerns(folder: str, client: str) -> bool:
    topic = folder.rpartition("-")[0]
    if topic in ("orders", "table", "history", "passing"):
        return (
            client.startswith(topic) or (topic == "orders" and client == "billing") or (topic == "history" and client == "trim")
        )
    if topic == "__logsvc_groups" or topic.startswith("dlq."):
        return client in ("billing", "passing")
    return folder.startswith("/")


def others_serve(fault: Fault) -> None:
    """Whoever has nothing to do with the place of the fault gets on, and at most one partition is offline."""
    shop, rounds = fault.shop, 0
    while rounds < PATIENCE_ROUNDS and (shop.service is None or shop.clients.keys() - shop.finished - in_doubt(fault)):
        shop.round()
        rounds += 1
    if shop.service is None:
        assert fault.mode.name != "eio-once", "no start, although nothing fails any more"
        return
    offline = [log for log in shop.service.logs.all_partitions() if log.state is not PartitionState.ONLINE]
    assert len(offline) <= 1, f"offline: {offline}"
    waiting = shop.clients.keys() - shop.finished - in_doubt(fault)
    assert not waiting, f"waiting without a reason: {waiting}; {shop.refusals[-3:]}"


def run(mode: str, number: int) -> Fault:
    """The day with one fault, what must hold meanwhile, and what must hold on a healthy disk afterwards."""
    fault = Fault(MODES[mode], number)
    shop = fault.shop
    shop.day()
    assert shop.crashed == fault.mode.stops or number > len(operations())
    if mode.endswith("once") or mode == "eio-in-its-folder-forever":
        others_serve(fault)
    # By turns: what the page cache holds survives, or does not. A mode that stops says which.
    power_cut = mode == "power-cut" or (not mode.startswith("kill") and number % 2 == 0)
    shop.recover(power_cut=power_cut)
    check(shop)
    return fault


def every(mode: str, part: int) -> tuple[int, Counter[str]]:
    """Run a slice of the operations a mode applies to; how many, and what was refused meanwhile by name."""
    refusals: Counter[str] = Counter()
    ran = 0
    for operation in operations()[part::SLICES]:
        if operation.kind not in MODES[mode].applies:
            continue
        try:
            fault = run(mode, operation.number)
        except Exception as error:
            error.add_note(f"{mode} at {operation}: run({mode!r}, {operation.number})")
            raise
        assert fault.struck, f"{operation} was not met again: the day is not the same each time"
        refusals.update(type(refusal).__name__ for refusal in fault.shop.refusals)
        ran += 1
    return ran, refusals


@pytest.mark.parametrize("part", range(SLICES))
@pytest.mark.parametrize("mode", MODES)
def test_whatever_operation_fails_nothing_acknowledged_is_lost_and_the_rest_serves(mode: str, part: int) -> None:
    ran, refusals = every(mode, part)
    of = sum(operation.kind in MODES[mode].applies for operation in operations()[part::SLICES])
    a_day = f"a day has {len(operations())}, {quiet_day().starting} of them in starts and recovery"
    print(f"{mode}: {ran} of {of} operations in slice {part} of {SLICES} ({a_day}); refused: {dict(refusals)}")
    assert ran == of
    assert len(operations()) > OPERATIONS_MIN


CRASH_EVERY = 211  # operations between the crashes after which recovery is made to fail
RECOVERY_MODES = ("eio-once", "enospc-once", "kill", "power-cut")


def run_twice(first: int, mode: str, second: int) -> bool:
    """The machine stops before operation `first`; then the broker's start fails at its operation `second`. False when the start
    has fewer than that."""
    shop = Fault(MODES["power-cut"], first).shop
    shop.day()
    assert shop.crashed
    shop.die(power_cut=first % 2 == 0)
    again = Fault(MODES[mode], shop.disk.operations + second, shop)
    shop.disk.hook = again
    shop.start()
    if again.folder is None:
        return False
    for _ in range(2):
        shop.round()
    shop.recover(power_cut=mode == "power-cut")
    check(shop)
    return True


@pytest.mark.parametrize("mode", RECOVERY_MODES)
def test_recovery_from_a_crash_may_fail_or_crash_at_any_of_its_own_operations(mode: str) -> None:
    crashes, faults = 0, 0
    for first in range(CRASH_EVERY, len(operations()), CRASH_EVERY):
        second = 1
        while run_twice(first, mode, second):
            second += 1
        crashes, faults = crashes + 1, faults + second - 1
    print(f"{mode} at every operation of the start after each of {crashes} crashes: {faults} runs")
    assert faults > 20 * crashes
