"""Lines of a file as records: the exact bytes between newlines, whatever they are, without holding more than one line."""

from collections.abc import Iterator
from typing import BinaryIO

from logsvc_common.errors import RecordTooLarge

# One record travels in one frame; a topic's `max.message.bytes` is usually far below this.
LINE_BYTES_MAX = 32 << 20


def read_lines(file: BinaryIO, limit: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """Each line without its `\\n`; nothing else is stripped. Bytes after the last newline are a line, an empty end is none.

    Raises RecordTooLarge, naming the line, when one is over `limit` bytes.
    """
    number = 0
    # One byte more than is allowed, for the newline.
    while line := file.readline(limit + 1):
        number += 1
        if line.endswith(b"\n"):
            yield line[:-1]
        elif len(line) > limit:
            raise RecordTooLarge(f"line {number} is longer than {limit:,} bytes, the most one record may have")
        else:
            yield line
