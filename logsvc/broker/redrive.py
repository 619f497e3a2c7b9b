"""Reading dead letters for a redrive: to decide about them, and to hand their records out again.

A redriven record is read from its letter, which has its key, value, headers and timestamp, and only from the topic itself
when the letter is gone: retention may have removed the original, and a topic that was deleted and made anew has another
record at that offset. The batch made from a letter has the original's offset and timestamp, so a client sees no difference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from logsvc.coordinator.events import LettersRead, ReadLetters
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc_common.batch import BatchHeader, Header, RawRecord, RecordData, check_crc, decode, encode, split
from logsvc_common.errors import LogsvcError, OffsetOutOfRange, UnknownTopic
from logsvc_common.letters import Letter, parse_letter
from logsvc_common.names import dead_letter_topic

LETTERS_BYTES = 1 << 20  # of letters read in one step of a redrive, or one batch if that is larger
COPIES_BYTES = 64 << 10  # read at a time around one letter: those that were redriven together lie together


@dataclass(slots=True)
class LetterCopy:
    """A record as its producer sent it, from its dead letter, with the codec of the letter's batch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    codec: int

    def as_batch(self) -> bytes:
        """A batch of this record alone, at its offset."""
        # The codec's builder takes no times before 1970.
        record = RecordData(self.value, self.key, max(0, self.timestamp), self.headers)
        return encode([record], base_offset=self.offset)


def read_letters(logs: LogDirectory, effect: ReadLetters) -> LettersRead:
    """Carry out the effect. Raises nothing: what goes wrong is told in the event."""
    letters: list[Letter] = []
    offset = effect.from_offset
    try:
        log = logs.partition(effect.dead_letter_topic, effect.partition)
        offset = max(offset, log.start_offset)
        for header, records in _batches(log, offset, LETTERS_BYTES, effect.end_offset):
            letters += (
                parse_letter(record.offset, record.timestamp, record.key, record.value, record.headers)
                for record in records
                if offset <= record.offset < effect.end_offset
            )
            offset = min(header.next_offset, effect.end_offset)
            if len(letters) >= effect.max_letters:
                break
    except LogsvcError as error:
        return LettersRead(effect.redrive_id, effect.partition, effect.from_offset, effect.from_offset, (), error.message)
    return LettersRead(effect.redrive_id, effect.partition, effect.from_offset, offset, letters)


def read_copies(
    logs: LogDirectory, group: str, topic: str, partition: int, letters: Mapping[int, int]
) -> dict[int, LetterCopy]:
    """The records of `letters` (offset of the letter -> offset of the record) that were failed by `group`, by their offset.

    Those whose letter is gone, or is about another record, are left out. Raises what reading raises.
    """
    copies: dict[int, LetterCopy] = {}
    try:
        log = logs.partition(dead_letter_topic(topic, group), partition)
    except UnknownTopic:
        return copies
    looked_at = -1
    for wanted in sorted(letters):
        if wanted < max(looked_at, log.start_offset):
            continue
        try:
            for header, records in _batches(log, wanted, COPIES_BYTES, log.high_watermark):
                looked_at = header.next_offset
                for record in records:
                    offset = letters.get(record.offset)
                    if offset is not None and (copy := _copy(record, header.codec, group, topic, partition, offset)):
                        copies[offset] = copy
        except OffsetOutOfRange:
            continue
    return copies


def _copy(record: RawRecord, codec: int, group: str, topic: str, partition: int, offset: int) -> LetterCopy | None:
    letter = parse_letter(record.offset, record.timestamp, record.key, record.value, record.headers)
    if not letter.is_of(group, topic, partition) or letter.offset != offset or letter.missing is not None:
        return None
    timestamp_ms = -1 if letter.timestamp_ms is None else letter.timestamp_ms
    return LetterCopy(offset, timestamp_ms, letter.key, letter.value, list(letter.headers), codec)


def _batches(log: PartitionLog, offset: int, max_bytes: int, end_offset: int) -> Iterator[tuple[BatchHeader, list[RawRecord]]]:
    """The batches of one read from `offset` on, none that begins at or above `end_offset`."""
    if offset >= end_offset:
        return
    for header, batch in split(log.read(offset, max_bytes), offset):
        if header.base_offset >= end_offset:
            return
        check_crc(batch, header)
        yield header, decode(batch)
