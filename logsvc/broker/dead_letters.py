"""Writing dead letters: the coordinator says which, here they are looked for, copied and appended.

The letter is searched from where the dead-letter partition ended when it was intended, so a restart between the append and
its completion finds it instead of writing it again. It keeps the record's key, value, headers and codec.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from logsvc.broker.appender import Appender
from logsvc.broker.record_reader import RecordReader
from logsvc.broker.redrive import LetterCopy, read_copies
from logsvc.coordinator.deadletter import identity, letter
from logsvc.coordinator.events import WriteDeadLetter
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import AppendResult, PartitionLog
from logsvc_common.batch import RawRecord, decode, encode, parse_header, split
from logsvc_common.errors import LogsvcError, OffsetOutOfRange, UnknownTopic

SEARCH_BYTES = 1 << 20  # read at a time while looking for a letter
LOOKED_MAX = 50_000  # letters remembered of a search for the next one

# A letter is as large as its record, which may have come compressed, plus our headers. It stays until somebody removes it.
DEAD_LETTER_SETTINGS = {"max.message.bytes": str(64 << 20), "retention.ms": "-1"}

Written = Callable[[int, LogsvcError | None], None]
"""Told the letter's offset once it is durable, or -1 and why it could not be written."""


@dataclass(slots=True)
class _Looked:
    """The letters of a partition from `first` up to `end`, by what they are about."""

    log: PartitionLog
    first: int
    end: int
    letters: dict[tuple[bytes | None, ...], int] = field(default_factory=dict)

    def serves(self, search_from: int) -> bool:
        """False when a search has to begin before these, or when there are many and it could do with fewer."""
        return self.first == search_from or (self.first < search_from and len(self.letters) < LOOKED_MAX)


class DeadLetterWriter:
    """`topic_changed` is called when a dead-letter topic was made or has grown."""

    def __init__(
        self,
        logs: LogDirectory,
        appender: Appender,
        reader: RecordReader,
        wall_ms: Callable[[], int],
        topic_changed: Callable[[], None],
    ) -> None:
        self._logs = logs
        self._appender = appender
        self._wall_ms = wall_ms
        self._topic_changed = topic_changed
        self._reader = reader
        # Failures come in runs: the letters they might be among are decoded once.
        self._looked: _Looked | None = None

    def write(self, effect: WriteDeadLetter, written: Written) -> None:
        """Write the letter unless it is there; `written` follows, perhaps before this returns. Raises nothing."""
        try:
            self._write(effect, written)
        except LogsvcError as error:
            written(-1, error)

    def _write(self, effect: WriteDeadLetter, written: Written) -> None:
        target = self._dead_letter_log(effect)
        found = self._find(target, effect)
        if found is not None:
            self._appender.when_durable(target, lambda error: written(found, error))
            return
        record, codec = self._failed_record(effect)
        now_ms = self._wall_ms()
        batch = encode([letter(record, effect, now_ms)], codec=codec)

        def done(result: AppendResult, error: LogsvcError | None) -> None:
            written(result.base_offset, error)

        self._appender.append(target, batch, parse_header(batch), now_ms, done)

    def _dead_letter_log(self, effect: WriteDeadLetter) -> PartitionLog:
        name = effect.dead_letter_topic
        topic = self._logs.topics.get(name)
        if topic is None:
            self._logs.create_topic(name, effect.partition_count, DEAD_LETTER_SETTINGS)
            self._topic_changed()
        elif len(topic.partitions) < effect.partition_count:
            self._logs.add_partitions(name, effect.partition_count)
            self._topic_changed()
        return self._logs.partition(name, effect.partition)

    def _find(self, target: PartitionLog, effect: WriteDeadLetter) -> int | None:
        looked = self._looked
        if looked is None or looked.log is not target or not looked.serves(effect.search_from):
            start = max(effect.search_from, target.start_offset)
            looked = self._looked = _Looked(target, effect.search_from, start)
        looked.end = max(looked.end, target.start_offset)  # letters may have been purged since
        for batch in _batches(target, looked.end):
            looked.letters.update((identity(record.headers), record.offset) for record in decode(batch))
            looked.end = parse_header(batch).next_offset
        found = looked.letters.get(identity(effect.headers), -1)
        return found if found >= effect.search_from else None

    def _failed_record(self, effect: WriteDeadLetter) -> tuple[RawRecord | LetterCopy | None, int]:
        """The record and its codec, where the group got it from: the dead letter it was redriven from, or the log."""
        if effect.letter >= 0:
            where = (effect.group, effect.topic, effect.partition)
            copies = read_copies(self._logs, *where, {effect.letter: effect.offset})
            if effect.offset in copies:
                return copies[effect.offset], copies[effect.offset].codec
        return self._original(effect)

    def _original(self, effect: WriteDeadLetter) -> tuple[RawRecord | None, int]:
        """The failed record and the codec of its batch; None when retention or a deletion has removed it."""
        try:
            record, header = self._reader.find(self._logs.partition(effect.topic, effect.partition), effect.offset)
        except (OffsetOutOfRange, UnknownTopic):
            return None, 0
        return record, header.codec


def _batches(log: PartitionLog, offset: int) -> Iterator[memoryview]:
    """The batches from `offset` to the end, those not durable yet too."""
    while offset < log.end_offset:
        data = log.read(offset, SEARCH_BYTES, up_to=log.end_offset)
        if not data:
            return
        for header, batch in split(data, offset):
            yield batch
            offset = header.next_offset
