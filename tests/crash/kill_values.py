"""Values that tell their number, and whether they are what was sent under it."""

import zlib

from tests.e2e.raw_peer import Stored
from tests.history.log import Found

VALUE_BYTES_MAX = 400


def value_of(number: int) -> bytes:
    """Number, checksum, and as many bytes of filling as the number says: told apart from any other, intact or not."""
    filling = b"." * (number * 7 % VALUE_BYTES_MAX)
    body = b"%d %b" % (number, filling)
    return b"%08x %b" % (zlib.crc32(body), body)


def found_in(record: Stored) -> Found:
    """What a stored value says it is."""
    value = record.value or b""
    number = value[9:].split(b" ", 1)[0]
    claimed = int(number) if number.isdigit() else -1
    return Found(claimed, record.key, record.offset, claimed >= 0 and value == value_of(claimed))
