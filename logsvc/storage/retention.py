"""Which segments a partition may delete: pure decisions.

Kafka's rules: oldest first, whole segments only, never the active one. By time, a segment goes when its largest timestamp is
older than `retention.ms`; by size, when the log without it still holds `retention.bytes`. A timestamp from the future would
pin its segment for good, so it counts no later than the segment's last write.
"""

from collections.abc import Sequence
from typing import NamedTuple

from logsvc.config import TopicConfig


class SegmentAge(NamedTuple):
    """What retention looks at."""

    size: int
    max_timestamp_ms: int
    modified_ms: int


def expired(sealed: Sequence[SegmentAge], active_bytes: int, config: TopicConfig, now_ms: int) -> int:
    """How many of the sealed segments, from the oldest, go now."""
    if "delete" not in config.cleanup_policy:
        return 0
    count = 0
    if config.retention_ms >= 0:
        while count < len(sealed) and _age_ms(sealed[count], now_ms) > config.retention_ms:
            count += 1
    if config.retention_bytes >= 0:
        total = active_bytes + sum(segment.size for segment in sealed[count:])
        while count < len(sealed) and total - sealed[count].size >= config.retention_bytes:
            total -= sealed[count].size
            count += 1
    return count


def _age_ms(segment: SegmentAge, now_ms: int) -> int:
    latest = min(segment.modified_ms, now_ms) if segment.modified_ms >= 0 else now_ms
    written = min(segment.max_timestamp_ms, latest) if segment.max_timestamp_ms >= 0 else latest
    return now_ms - written
