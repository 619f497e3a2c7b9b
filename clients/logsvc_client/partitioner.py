"""Where a record goes: Kafka's placement, so that a key lands on the same partition number as with Kafka's own producer.

A record with a key goes to `(murmur2(key) & 0x7fffffff) % partitions`, as in Kafka's `BuiltInPartitioner`. Records
without one stick to a partition until its batch is closed, then move to another (KIP-480): full batches instead of many
small ones, and an even spread over time. The same hash, with its sign bit, names a key in a group's failures.
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
    """The partition of a key among `partitions`."""
    return (_hash(key, SEED) & 0x7FFFFFFF) % partitions


def next_sticky(current: int, partitions: int, choice: int) -> int:
    """Another partition than `current`, if there is one. `choice` is any random number of at least 31 bits."""
    if partitions == 1:
        return 0
    if current < 0:
        return choice % partitions
    return (current + 1 + choice % (partitions - 1)) % partitions
