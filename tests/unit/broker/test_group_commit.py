"""Group commit: one fsync for all that came meanwhile, and what a failed one means."""

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from logsvc.broker.group_commit import GroupCommit
from logsvc.broker.sync_threads import SyncThreads
from logsvc_common.errors import LogsvcError, StorageFailed


class GatedLog:
    """A log whose sync waits until it is let through."""

    def __init__(self) -> None:
        self.entered: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.gate: queue.SimpleQueue[LogsvcError | None] = queue.SimpleQueue()
        self.syncs = 0
        self.under_way = 0

    def sync(self) -> int:
        self.under_way += 1
        assert self.under_way == 1, "two syncs of one log at a time"
        self.syncs += 1
        self.entered.put(None)
        error = self.gate.get(timeout=10)
        self.under_way -= 1
        if error is not None:
            raise error
        return self.syncs


class Loop:
    """The event loop's queue, run by hand."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.get_ident()

    def run_one(self) -> None:
        self.calls.get(timeout=10)()


@pytest.fixture
def threads() -> Iterator[SyncThreads]:
    made = SyncThreads(2)
    yield made
    made.stop()


def slow() -> Callable[[], float]:
    """The clock of a disk that takes a second for each sync: they all go to threads."""
    return count().__next__


def start(threads: SyncThreads) -> tuple[Loop, GroupCommit, list[float]]:
    loop, seconds = Loop(), []
    return loop, GroupCommit(threads.submit, lambda call: call(), loop.calls.put, seconds.append, slow()), seconds


def test_all_that_commit_during_a_sync_share_the_next_one(threads: SyncThreads) -> None:
    loop, commits, seconds = start(threads)
    log, told = GatedLog(), []
    commits.commit(log, lambda error: told.append((1, error)))
    log.entered.get(timeout=10)
    for number in (2, 3, 4):
        commits.commit(log, lambda error, number=number: told.append((number, error)))

    log.gate.put(None)
    loop.run_one()
    assert told == [(1, None)]

    log.gate.put(None)
    loop.run_one()
    assert told == [(1, None), (2, None), (3, None), (4, None)]
    assert log.syncs == 2
    assert len(seconds) == 2


def test_what_one_turn_of_the_loop_appends_goes_with_one_sync(threads: SyncThreads) -> None:
    loop, later = Loop(), []
    commits = GroupCommit(threads.submit, later.append, loop.calls.put, lambda _: None, slow())
    log, told = GatedLog(), []
    for number in range(3):
        commits.commit(log, lambda error, number=number: told.append(number))
    assert log.syncs == 0

    for call in later:
        call()
    log.gate.put(None)
    loop.run_one()
    assert told == [0, 1, 2]
    assert log.syncs == 1


def test_different_logs_sync_side_by_side(threads: SyncThreads) -> None:
    loop, commits, _ = start(threads)
    first, second, told = GatedLog(), GatedLog(), []
    commits.commit(first, lambda error: told.append("first"))
    commits.commit(second, lambda error: told.append("second"))
    first.entered.get(timeout=10)
    second.entered.get(timeout=10)

    second.gate.put(None)
    loop.run_one()
    assert told == ["second"]
    first.gate.put(None)
    loop.run_one()
    assert told == ["second", "first"]


def test_a_failed_sync_is_told_to_everyone_who_waited_for_it_and_not_to_the_next(threads: SyncThreads) -> None:
    loop, commits, _ = start(threads)
    log, told = GatedLog(), []
    commits.commit(log, lambda error: told.append(error))
    log.entered.get(timeout=10)
    commits.commit(log, lambda error: told.append(error))
    failure = StorageFailed("the disk is gone")
    log.gate.put(failure)
    loop.run_one()
    assert told == [failure]
    log.gate.put(None)
    loop.run_one()
    assert told == [failure, None]


def test_a_sync_that_breaks_in_an_unforeseen_way_is_still_answered(threads: SyncThreads) -> None:
    loop, commits, _ = start(threads)

    class Broken:
        def sync(self) -> int:
            raise ValueError("a bug")

    told: list[LogsvcError | None] = []
    commits.commit(Broken(), told.append)
    loop.run_one()
    assert isinstance(told[0], StorageFailed)


class TimedLog:
    """A log whose syncs take as long as told, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes = 0.0001
        self.threads: list[int] = []

    def sync(self) -> int:
        self.now += self.takes
        self.threads.append(threading.get_ident())
        return 0


def test_a_lone_commit_is_synced_in_place_while_the_disk_is_quick_and_never_when_it_is_slow() -> None:
    log, submitted, told = TimedLog(), [], []
    commits = GroupCommit(submitted.append, lambda call: call(), lambda call: call(), lambda _: None, lambda: log.now)

    def commit() -> int:
        """How many syncs of this commit went to a thread."""
        before = len(submitted)
        commits.commit(log, told.append)
        for job in submitted[before:]:
            job()
        return len(submitted) - before

    assert commit() == 1, "nothing is known of the disk yet"
    assert [commit() for _ in range(5)] == [0] * 5
    log.takes = 0.1
    assert commit() == 0, "the first slow one could not be foreseen"
    assert [commit() for _ in range(5)] == [1] * 5
    log.takes = 0.0001
    assert 0 in [commit() for _ in range(200)], "a disk that is quick again is trusted again"
    assert told == [None] * len(log.threads)


def test_commits_that_come_together_go_to_a_thread() -> None:
    log, submitted, later = TimedLog(), [], []
    commits = GroupCommit(submitted.append, later.append, lambda call: call(), lambda _: None, lambda: log.now)
    for _ in range(3):
        commits.commit(log, lambda _: None)
        later.pop()()
        if submitted:
            submitted.pop()()
    for _ in range(2):
        commits.commit(log, lambda _: None)
    later.pop()()
    assert len(submitted) == 1
