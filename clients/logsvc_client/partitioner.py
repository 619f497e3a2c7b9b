"""Where a record goes: Kafka's placement, so that a key lands on the same partition number as with Kafka's own producer.

A record with a key goes to `(murmur2(key) & 0x7fffffff) % partitions`, as in Kafka's `BuiltInPartitioner`. Records
without one stick to a partition until its batch is closed, then move to another (KIP-480): full batches instead of many
small ones, and an even spread over time.
"""

from logsvc_common.keys import partition_for

__all__ = ["next_sticky", "partition_for"]


def next_sticky(current: int, partitions: int, choice: int) -> int:
    """Another partition than `current`, if there is one. `choice` is any random number of at least 31 bits."""
    if partitions == 1:
        return 0
    if current < 0:
        return choice % partitions
    return (current + 1 + choice % (partitions - 1)) % partitions
