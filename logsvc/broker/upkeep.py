"""What keeps the logs small: retention on the event loop, compaction in a worker thread, one partition after the other."""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from logsvc.broker.group_commit import Call
from logsvc.storage.compaction import Compaction
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.errors import LogsvcError

logger = logging.getLogger(__name__)


class Upkeep:
    """`run_in_thread` runs a callable in a worker, `from_thread` one in the event loop's thread."""

    def __init__(
        self, logs: LogDirectory, run_in_thread: Callable[[Call], object], from_thread: Callable[[Call], object]
    ) -> None:
        self._logs = logs
        self._run_in_thread = run_in_thread
        self._from_thread = from_thread
        self._planned: deque[tuple[PartitionLog, Compaction]] = deque()
        self._compacting = False

    def run(self, now_ms: int) -> None:
        """Apply retention, then compact what wants it. `now_ms` is wall-clock."""
        self._logs.apply_retention(now_ms)
        # Partitions already planned are not planned again until they are finished.
        self._planned += self._logs.compactions(now_ms)
        if not self._compacting:
            self._next()

    def _next(self) -> None:
        self._compacting = bool(self._planned)
        if self._compacting:
            log, work = self._planned.popleft()
            self._run_in_thread(partial(self._compact, log, work))

    def _compact(self, log: PartitionLog, work: Compaction) -> None:
        """In a worker thread; what goes wrong is kept in `work` for the event loop."""
        work.run()
        self._from_thread(partial(self._finish, log, work))

    def _finish(self, log: PartitionLog, work: Compaction) -> None:
        try:
            freed_bytes = log.finish_compaction(work)
        except LogsvcError as error:
            logger.warning("%s-%d was not compacted: %s", log.topic, log.partition, error)
        else:
            logger.info("%s-%d compacted, %d bytes freed", log.topic, log.partition, freed_bytes)
        self._next()
