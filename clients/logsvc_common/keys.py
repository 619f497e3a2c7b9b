"""Kafka's hash of a key: it places records, and it names a key where records of one key keep their order.

Both sides need the same one: a client says which key a failed record has, the broker which key a dead letter has.
"""

from collections.abc import Callable

_compiled: Callable[[bytes, int], int] | None
try:
    from murmurhash2 import murmurhash2 as _compiled
except ImportError:  # The package is dormant; the rule below is the same hash, slower.
    _compiled = None

SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2_pure(key: bytes, seed: int = SEED) -> int:
    """Austin Appleby's MurmurHash2, 32 bits, as an unsigned number."""
    length = len(key)
    value = (seed ^ length) & _MASK
    whole = length & ~3
    for start in range(0, whole, 4):
        part = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        part = (part ^ part >> 24) * _M & _MASK
        value = (value * _M & _MASK) ^ part
    if length > whole:
        value = (value ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    value = (value ^ value >> 13) * _M & _MASK
    return value ^ value >> 15


_hash: Callable[[bytes, int], int] = _compiled or murmur2_pure


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key (seed 0x9747b28c), unsigned."""
    return _hash(key, SEED)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key among `partitions`, as Kafka's `BuiltInPartitioner` places it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
