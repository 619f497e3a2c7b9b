"""Where every log begins and ends, at one moment, in columns.

Positions of groups are compared with it by number, so that 50,000 of them cost a few list comprehensions and not a lookup by
topic and partition each.
"""

from logsvc.coordinator.events import TopicPartition
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog


class LogTable:
    """The partitions of a data folder. `generation` changes when their numbers do."""

    def __init__(self, logs: LogDirectory) -> None:
        self._directory = logs
        self.logs: list[PartitionLog] = []
        self.numbers: dict[TopicPartition, int] = {}
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.generation = 0

    def refresh(self) -> None:
        """Look again. An end is the high watermark: what consumers may read up to."""
        logs = self._directory.all_partitions()
        if logs != self.logs:
            self.logs = logs
            self.numbers = {(log.topic, log.partition): number for number, log in enumerate(logs)}
            self.generation += 1
        self.starts = [log.start_offset for log in logs]
        self.ends = [log.high_watermark for log in logs]
