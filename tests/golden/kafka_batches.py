"""Three records as Apache Kafka 3.9.1 itself writes them, once per codec, and the same records in our words.

The bytes come from Kafka's `MemoryRecordsBuilder` (magic 2, base offset 42, producer id 7, epoch 3, base sequence 9).
"""

from logsvc_common.batch import RecordData

BASE_OFFSET = 42
PRODUCER_ID = 7
PRODUCER_EPOCH = 3
BASE_SEQUENCE = 9

RECORDS = (
    RecordData(b"value", b"key", 1_700_000_000_000, [("h", b"x"), ("n", None)]),
    RecordData(None, None, 1_700_000_000_123),
    RecordData("ü€".encode(), b"", 1_700_000_000_099, [("größe", b"")]),
)

# base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and max timestamp,
# producer id, producer epoch, base sequence, record count
_HEADER_END = "00000002" + "0000018bcfe56800" + "0000018bcfe5687b" + "0000000000000007" + "0003" + "00000009" + "00000003"
_PLAIN_RECORDS = (
    "2a000000066b65790a76616c75650402680278026e01"  # length 21, then attributes, deltas 0 and 0, key, value, 2 headers
    "0e00f60102010100"  # length 7, timestamp delta 123, offset delta 1, null key, null value, no header
    "2a00c60104000ac3bce282ac020e6772c3b6c39f6500"  # timestamp delta 99, offset delta 2, empty key, "ü€", header "größe"
)

BY_KAFKA = {
    "none": "000000000000002a" + "00000065" + "ffffffff" + "02" + "c1a51cb4" + "0000" + _HEADER_END + _PLAIN_RECORDS,
    "gzip": "000000000000002a"
    + "0000007a"
    + "ffffffff"
    + "02"
    + "ba668926"
    + "0001"
    + _HEADER_END
    + (
        "1f8b08000000000000ffd362606060cb4eade42a4bcc294d6561ca60aa60ca63e463f8c6c8c4c8c8a0c5708c918581ebf09e474d6b98f8d28b0e6f3b"
        "3c3f9501008e62303d34000000"
    ),
    "snappy": "000000000000002a"
    + "0000007b"
    + "ffffffff"
    + "02"
    + "9206e75e"
    + "0002"
    + _HEADER_END
    + ("82534e415050590000000001000000010000003634cc" + _PLAIN_RECORDS),
    "lz4": "000000000000002a"
    + "00000074"
    + "ffffffff"
    + "02"
    + "598bb39e"
    + "0003"
    + _HEADER_END
    + ("04224d18604082" + "34000080" + _PLAIN_RECORDS + "00000000"),
    "zstd": "000000000000002a"
    + "00000071"
    + "ffffffff"
    + "02"
    + "1f190d06"
    + "0004"
    + _HEADER_END
    + ("28b52ffd0058a00100" + _PLAIN_RECORDS + "010000"),
}


def by_kafka(codec: str) -> bytes:
    return bytes.fromhex(BY_KAFKA[codec])
