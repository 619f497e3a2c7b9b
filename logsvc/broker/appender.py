"""The one way into a partition log: append now, be told when it is as durable as the topic promises.

`flush=always` waits for a group commit; `interval` is told at once, and a timer syncs what is dirty; `os` is told at once.
Fetches parked on the log are woken when consumers may read what came: under `always` that is after the sync, so nobody
ever reads a record that a power cut could take back.
"""

import time
from collections.abc import Callable
from functools import partial

from logsvc.broker.group_commit import Done, GroupCommit
from logsvc.storage.partition_log import AppendResult, PartitionLog
from logsvc_common.batch import BatchHeader, Buffer
from logsvc_common.errors import LogsvcError

Appended = Callable[[AppendResult, LogsvcError | None], None]
"""Told where the batch lies, and None when it is as durable as promised, else why it is not."""


class Appender:
    """`readable(log, bytes)` is called when that many more bytes of `log` may be read; `count(topic, records, bytes)` is told
    of what was appended and is as durable as promised."""

    def __init__(
        self,
        group_commit: GroupCommit,
        readable: Callable[[PartitionLog, int], None],
        count: Callable[[str, int, int], None],
        observe_append_seconds: Callable[[float], None],
    ) -> None:
        self._group_commit = group_commit
        self._observe = observe_append_seconds
        self._readable = readable
        self._count = count
        self._interval_due_ms: dict[PartitionLog, int] = {}

    def append(self, log: PartitionLog, batch: Buffer, header: BatchHeader, now_ms: int, done: Appended) -> None:
        """Append one checked batch; `done` follows, perhaps before this returns. Raises what PartitionLog.append raises,
        and then `done` is not called."""
        started = time.perf_counter()
        result = log.append(batch, header, now_ms)
        self._observe(time.perf_counter() - started)
        size = 0 if result.duplicate else header.size
        if log.config.flush == "always":
            if log.durable_offset > result.last_offset:
                done(result, None)
            else:
                self._group_commit.commit(log, partial(self._synced, log, result, size, done))
            return
        if log.config.flush == "interval":
            self._interval_due_ms.setdefault(log, now_ms + log.config.flush_interval_ms)
        elif log.sync_wanted:
            self._group_commit.commit(log, _ignore)
        self._synced(log, result, size, done, None)

    def when_durable(self, log: PartitionLog, done: Done) -> None:
        """Call `done` when all that `log` holds now is durable."""
        if log.durable_offset >= log.end_offset:
            done(None)
        else:
            self._group_commit.commit(log, done)

    def sync_due(self, now_ms: int) -> None:
        """Start the syncs of `flush=interval` logs that have come due. A failure marks the log itself."""
        for log in [log for log, due_ms in self._interval_due_ms.items() if due_ms <= now_ms]:
            del self._interval_due_ms[log]
            self._group_commit.commit(log, _ignore)

    def next_due_ms(self) -> int | None:
        return min(self._interval_due_ms.values(), default=None)

    def _synced(self, log: PartitionLog, result: AppendResult, size: int, done: Appended, error: LogsvcError | None) -> None:
        if error is None and size:
            self._count(log.topic, result.last_offset - result.base_offset + 1, size)
            self._readable(log, size)
        done(result, error)


def _ignore(_error: LogsvcError | None) -> None:
    """Nobody waits for this sync; a failure has marked the log."""
