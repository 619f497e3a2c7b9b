"""How many dead letters lie where, whose they are, and since when.

Which group and topic a dead-letter topic belongs to cannot be told from its name, `dlq.a.b.c`: names may hold dots. Its oldest
letter says it, and is believed when its group and topic make that name. What is read is remembered: a pile that has not
been trimmed costs no read.
"""

from collections.abc import Iterator
from typing import NamedTuple

from logsvc.storage.log_directory import LogDirectory, Topic
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import check_crc, decode, split
from logsvc_common.errors import LogsvcError
from logsvc_common.letters import parse_letter
from logsvc_common.names import dead_letter_topic, is_dead_letter

READS_PER_STEP = 8


class LetterPile(NamedTuple):
    """The letters of one dead-letter topic that are there now. `oldest_ms`: when the oldest was written, None without any."""

    topic: str
    source_topic: str
    group: str
    letters: int
    oldest_ms: int | None


class LetterPiles:
    """Reads the dead-letter topics of a data folder."""

    def __init__(self, logs: LogDirectory) -> None:
        self._logs = logs
        self._owners: dict[str, tuple[str, str]] = {}  # topic id -> (source topic, group)
        self._nobodys: dict[str, tuple[PartitionLog, int]] = {}  # topic id -> the oldest record, which was no letter of it
        self._oldest: dict[PartitionLog, tuple[int, int | None]] = {}  # (start offset, its timestamp)

    def all(self) -> list[LetterPile]:
        """Every pile whose owner is known, by name."""
        return [pile for pile in self.steps() if pile is not None]

    def steps(self) -> Iterator[LetterPile | None]:
        """The piles by name; None ends a short step without one."""
        topics = sorted((topic for topic in self._logs.topics.values() if is_dead_letter(topic.name)), key=lambda one: one.name)
        self._forget_others(topics)
        for topic in topics:
            filled = [log for log in topic.partitions if log.high_watermark > log.start_offset]
            unread = [log for log in filled if self._oldest.get(log, (-1, 0))[0] != log.start_offset]
            for start in range(0, len(unread), READS_PER_STEP):
                for log in unread[start : start + READS_PER_STEP]:
                    self._read_oldest(log)
                yield None
            owner = self._owner(topic, filled)
            if owner is not None:
                times = [found for log in filled if (found := self._oldest[log][1]) is not None]
                letters = sum(log.high_watermark - log.start_offset for log in filled)
                yield LetterPile(topic.name, *owner, letters, min(times, default=None))

    def _forget_others(self, topics: list[Topic]) -> None:
        for known in (self._owners, self._nobodys):
            for gone in known.keys() - {topic.topic_id for topic in topics}:
                del known[gone]
        if self._oldest:
            for log in self._oldest.keys() - {log for topic in topics for log in topic.partitions}:
                del self._oldest[log]

    def _read_oldest(self, log: PartitionLog) -> None:
        try:
            self._oldest[log] = (log.start_offset, log.timestamp_at(log.start_offset))
        except LogsvcError:  # a failed partition says so itself
            self._oldest[log] = (log.start_offset, None)

    def _owner(self, topic: Topic, filled: list[PartitionLog]) -> tuple[str, str] | None:
        known = self._owners.get(topic.topic_id)
        if known is not None or not filled:
            return known
        oldest = filled[0], filled[0].start_offset
        if self._nobodys.get(topic.topic_id) == oldest:
            return None
        found = _named_by(filled[0])
        if found is None or dead_letter_topic(*found) != topic.name:
            self._nobodys[topic.topic_id] = oldest
            return None
        self._nobodys.pop(topic.topic_id, None)
        self._owners[topic.topic_id] = found
        return found


def _named_by(log: PartitionLog) -> tuple[str, str] | None:
    """(source topic, group) that the oldest letter of a partition names."""
    try:
        header, batch = next(split(log.read(log.start_offset, 1)))
        check_crc(batch, header)
        records = [record for record in decode(batch) if record.offset >= log.start_offset]
    except (LogsvcError, StopIteration):
        return None
    if not records:
        return None
    letter = parse_letter(records[0].offset, records[0].timestamp, records[0].key, records[0].value, records[0].headers)
    return None if letter.topic is None or letter.group is None else (letter.topic, letter.group)
