"""Records that are due again, whole: as many as one answer may hold.

A member that has not kept them gets their batches. They may be large, and hundreds are due at once after an outage or a
redrive; a frame that is larger than clients take would break the connection, and be asked for again on the next one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from logsvc.broker.record_reader import Found, RecordReader, batches_of, size_of
from logsvc.broker.redrive import LetterCopy, read_copies
from logsvc.storage.log_directory import LogDirectory
from logsvc_common.errors import LogsvcError, UnknownTopic
from logsvc_common.messages import DueRecord, RetriesResult


class Whole(NamedTuple):
    """`frames` has the batches of each of `results`; `left_out` is what found no room."""

    results: list[RetriesResult]
    frames: list[bytes]
    left_out: list[RetriesResult]


class DueRecords:
    """Reads records out of their topics, and redriven ones out of their dead letters."""

    def __init__(self, logs: LogDirectory, reader: RecordReader) -> None:
        self._logs = logs
        self._reader = reader

    def read(self, group: str, due: Sequence[RetriesResult], bytes_max: int) -> Whole:
        """The first of them, up to about `bytes_max` bytes and at least one. A partition that cannot be read has an error, and
        its records stay out: asked for again at once, they could not be read either."""
        found = Whole([], [], [])
        room = bytes_max
        for each in due:
            try:
                frame, count = self._frame(group, each, room) if room > 0 else (b"", 0)
            except LogsvcError as error:
                found.results.append(replace(each, records=[], error_code=error.code, error_message=error.message))
                found.frames.append(b"")
                continue
            room -= len(frame)
            if count:
                found.results.append(replace(each, records=each.records[:count]))
                found.frames.append(frame)
            if count < len(each.records):
                found.left_out.append(replace(each, records=each.records[count:]))
        return found

    def _frame(self, group: str, due: RetriesResult, room: int) -> tuple[bytes, int]:
        """Batches of the first records of `due`, which ascend, and of nothing else; and how many those are. A redriven one
        comes from its dead letter while that is there. Nothing for those that retention has removed."""
        try:
            log = self._logs.partition(due.topic, due.partition)
        except UnknownTopic:
            return b"", len(due.records)
        copies: list[bytes] = []
        originals: list[Found] = []
        size = count = 0
        portion = 1  # letters are read before it is known how large they are
        while count < len(due.records) and size < room:
            some = due.records[count : count + portion]
            portion *= 2
            copied = self._copies(group, due, some)
            for entry in some:
                if size >= room:
                    break
                count += 1
                if entry.offset in copied:
                    copies.append(copied[entry.offset].as_batch())
                    size += len(copies[-1])
                elif (found := self._reader.get(log, entry.offset)) is not None:
                    originals.append(found)
                    size += size_of(found.record)
        return b"".join([*copies, *batches_of(originals)]), count

    def _copies(self, group: str, due: RetriesResult, records: Sequence[DueRecord]) -> dict[int, LetterCopy]:
        letters = {record.letter: record.offset for record in records if record.letter >= 0}
        return read_copies(self._logs, group, due.topic, due.partition, letters) if letters else {}
