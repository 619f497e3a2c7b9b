"""Reading without a group: which partitions, from where to where, and the records in between."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from logsvc.cli.positions import Kind, Position
from logsvc_client import Admin, Consumer, Record, TopicPartition
from logsvc_common.errors import UnknownPartition

POLL_MS = 500
POLL_RECORDS = 5_000


class Span(NamedTuple):
    """A stretch of one partition: from `start`, up to and without `end`, which is where the partition ended when asked."""

    where: TopicPartition
    start: int
    end: int


def find_spans(admin: Admin, topics: Sequence[str], position: Position, partitions: Sequence[int] = ()) -> list[Span]:
    """What there is to read in `topics` from `position` on, in all their partitions or in those named.

    Raises UnknownTopic, UnknownPartition.
    """
    spans = []
    for topic in admin.describe_topics(topics):
        for unknown in sorted(set(partitions) - set(range(topic.partition_count))):
            raise UnknownPartition(f"topic {topic.topic} has partitions 0 to {topic.partition_count - 1}, not {unknown}")
        for partition in topic.partitions:
            if not partitions or partition.partition in partitions:
                where = TopicPartition(topic.topic, partition.partition)
                begin = (
                    partition.start_offset
                    if position.kind is Kind.TIME
                    else position.resolve(partition.start_offset, partition.end_offset)
                )
                spans.append(Span(where, begin, partition.end_offset))
    if position.kind is not Kind.TIME:
        return spans
    found = admin.offsets_for_times({span.where: position.value for span in spans})
    # No record at or after that time yet: begin with the first to come.
    return [span._replace(start=found[span.where] if found[span.where] >= 0 else span.end) for span in spans]


def read(server: str, spans: Sequence[Span], *, to_end: bool, limit: int | None = None) -> Iterator[list[Record]]:
    """The records of `spans`, as lists, in order within a partition; an empty list when none came for POLL_MS.

    With `to_end`, only what was there when the spans were found, and then it ends; otherwise it goes on with what comes.
    At most `limit` records in all.
    """
    ends = {span.where: span.end for span in spans if span.start < span.end}
    starts = {span.where: span.start for span in spans if not to_end or span.where in ends}
    left = limit
    if not starts or left == 0:
        return
    with Consumer(server=server, client_id="logsvc-cli") as consumer:
        consumer.assign(list(starts))
        for where, start in starts.items():
            consumer.seek(where, start)
        while (left is None or left > 0) and not (to_end and not ends):
            records = consumer.poll(POLL_MS, max_records=POLL_RECORDS if left is None else min(left, POLL_RECORDS))
            if to_end:
                records = _before(ends, records)
                if not records:
                    # Compaction may have left a tail without records: the position passes it all the same.
                    ends = {where: end for where, end in ends.items() if consumer.position(where) < end}
            if left is not None:
                left -= len(records)
            yield records


def _before(ends: dict[TopicPartition, int], records: list[Record]) -> list[Record]:
    """Those of `records` that lie before the end of their partition; a partition that has reached it leaves `ends`."""
    wanted = [record for record in records if record.offset < ends.get(record.topic_partition, 0)]
    for record in records:
        if record.offset + 1 >= ends.get(record.topic_partition, 1 << 62):
            del ends[record.topic_partition]
    return wanted
