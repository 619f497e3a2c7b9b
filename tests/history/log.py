"""The history of a run, and what is wrong with it: a pure function over what was sent, acknowledged and found.

One checker for all runs, of real processes (`tests/crash`) and simulated ones (`tests/simulation`); `groups` has the rest of
it, about what became of failing records.

The anomalies carry the names that Jepsen's checker of Kafka gives them, where it has one:

    lost-write            acknowledged, and not in the log
    inconsistent-offset   acknowledged at one place, found at another; or two records acknowledged at the same place
    duplicate             the same record more than once
    phantom               a record that nobody sent, or that is not what was sent
    gap                   offsets that do not follow one another
    nonmonotonic-send     records of one key in another order than they were sent
    missing               sent, never reported failed, and not in the log: the client forgot it
    poll-skip             a reader passed over records
    nonmonotonic-poll     a reader that keeps its own position was handed a record again, or an earlier one
    unseen                a record in the log that a reader never was handed

A record whose delivery failed (or never ended) may be there or not; everything else is decided.

A log may have been trimmed: `start_offset` says where it begins now (of all partitions, or by partition), and what lies below
is not looked for. That nothing was trimmed which nobody asked to be is `trim_anomalies`' part.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Sent(NamedTuple):
    """Record `number` of the run, in the order of sending."""

    number: int
    key: bytes


class Place(NamedTuple):
    partition: int
    offset: int


class Found(NamedTuple):
    """A record as the log has it; `intact` says that its value is what was sent under its number."""

    number: int
    key: bytes | None
    offset: int
    intact: bool = True


class Anomaly(NamedTuple):
    kind: str
    detail: str


Start = int | Mapping[int, int]


def starts_of(log: Mapping[int, Sequence[Found]], start_offset: Start) -> dict[int, int]:
    """Where each partition begins."""
    if isinstance(start_offset, int):
        return dict.fromkeys(log, start_offset)
    return {partition: start_offset.get(partition, 0) for partition in log}


def anomalies(
    sent: Sequence[Sent],
    acked: Mapping[int, Iterable[Place]],
    failed: Iterable[int],
    log: Mapping[int, Sequence[Found]],
    start_offset: Start = 0,
) -> list[Anomaly]:
    """Everything wrong with a history. `acked` maps a record's number to where it was acknowledged (more than once, if the
    client said so more than once), `failed` names those reported failed, `log` holds each partition's records as read."""
    starts = starts_of(log, start_offset)
    return [
        *_misplaced(acked, log, starts),
        *_repeated(log),
        *_foreign(sent, log),
        *_gaps(log, starts),
        *_reordered(log),
        *_forgotten(sent, acked, failed, log),
    ]


def _places(log: Mapping[int, Sequence[Found]]) -> dict[int, list[Place]]:
    places: dict[int, list[Place]] = {}
    for partition, records in log.items():
        for record in records:
            places.setdefault(record.number, []).append(Place(partition, record.offset))
    return places


def trim_anomalies(starts: Mapping[int, int], trimmed: Mapping[int, int]) -> list[Anomaly]:
    """`trimmed`: by partition, the highest offset anybody asked to trim to; nothing at or above it may be gone."""
    return [
        Anomaly("lost-write", f"partition {partition} begins at {start}, trimmed to {trimmed.get(partition, 0)} at most")
        for partition, start in starts.items()
        if start > trimmed.get(partition, 0)
    ]


def _misplaced(
    acked: Mapping[int, Iterable[Place]], log: Mapping[int, Sequence[Found]], starts: Mapping[int, int]
) -> Iterable[Anomaly]:
    found = _places(log)
    taken: dict[Place, int] = {}
    for number, places in acked.items():
        for place in places:
            if place.offset < starts.get(place.partition, 0):
                pass  # It was trimmed.
            elif number not in found:
                yield Anomaly("lost-write", f"record {number} was acknowledged at {place} and is not there")
            elif place not in found[number]:
                yield Anomaly("inconsistent-offset", f"record {number} was acknowledged at {place}, found at {found[number]}")
            if taken.setdefault(place, number) != number:
                yield Anomaly("inconsistent-offset", f"records {taken[place]} and {number} were both acknowledged at {place}")


def _repeated(log: Mapping[int, Sequence[Found]]) -> Iterable[Anomaly]:
    for number, places in _places(log).items():
        if len(places) > 1:
            yield Anomaly("duplicate", f"record {number} stands at {places}")


def _foreign(sent: Sequence[Sent], log: Mapping[int, Sequence[Found]]) -> Iterable[Anomaly]:
    keys = {record.number: record.key for record in sent}
    for partition, records in log.items():
        for record in records:
            if record.number not in keys:
                yield Anomaly("phantom", f"{partition}/{record.offset} holds {record.number}, which nobody sent")
            elif not record.intact or record.key != keys[record.number]:
                yield Anomaly("phantom", f"{partition}/{record.offset} is not what was sent as {record.number}")


def _gaps(log: Mapping[int, Sequence[Found]], starts: Mapping[int, int]) -> Iterable[Anomaly]:
    for partition, records in log.items():
        for expected, record in enumerate(records, starts[partition]):
            if record.offset != expected:
                yield Anomaly("gap", f"partition {partition} goes on at {record.offset} where {expected} is next")
                break


def _reordered(log: Mapping[int, Sequence[Found]]) -> Iterable[Anomaly]:
    last: dict[bytes | None, tuple[int, int]] = {}
    for partition, records in log.items():
        for record in records:
            before = last.get(record.key)
            if before is not None and before[0] != partition:
                yield Anomaly("nonmonotonic-send", f"key {record.key!r} is in partitions {before[0]} and {partition}")
            elif before is not None and record.number < before[1]:
                yield Anomaly("nonmonotonic-send", f"key {record.key!r}: {record.number} stands behind {before[1]}")
            last[record.key] = (partition, record.number)


def _forgotten(
    sent: Sequence[Sent],
    acked: Mapping[int, Iterable[Place]],
    failed: Iterable[int],
    log: Mapping[int, Sequence[Found]],
) -> Iterable[Anomaly]:
    found, gone = _places(log), set(failed)
    for record in sent:
        if record.number not in found and record.number not in acked and record.number not in gone:
            yield Anomaly("missing", f"record {record.number} was sent, never failed, and is not there")


class Polled(NamedTuple):
    """A record as a reader was handed it."""

    partition: int
    found: Found


def reading_anomalies(
    polled: Sequence[Polled],
    log: Mapping[int, Sequence[Found]],
    *,
    again_allowed: bool,
    start_offset: Start = 0,
    first_offset: int = 0,
) -> list[Anomaly]:
    """Everything wrong with what one reader saw, in its order, of a log that has ended since.

    `again_allowed`: for a member of a group, which may be handed again what it had not committed, but may never pass over
    a record it has not seen. What has been trimmed by the end, below `start_offset`, it may have seen or not; a log that was
    never trimmed is read from `first_offset`.
    """
    wrong = []
    starts = starts_of(log, start_offset)
    records = {partition: {record.offset: record for record in found} for partition, found in log.items()}
    expected = dict.fromkeys(log, first_offset if not isinstance(start_offset, int) else start_offset)
    for partition, found in polled:
        if found.offset >= starts[partition] and records[partition].get(found.offset) != found:
            wrong.append(Anomaly("inconsistent-offset", f"{partition}/{found.offset} was read as {found.number}"))
        if found.offset > max(expected[partition], starts[partition]):
            skipped = f"{max(expected[partition], starts[partition])} to {found.offset - 1}"
            wrong.append(Anomaly("poll-skip", f"partition {partition}: {skipped} were passed over"))
        elif found.offset < expected[partition] and not again_allowed:
            wrong.append(Anomaly("nonmonotonic-poll", f"{partition}/{found.offset} came after {expected[partition] - 1}"))
        expected[partition] = max(expected[partition], found.offset + 1)
    for partition, offset in expected.items():
        begin, end = max(offset, starts[partition]), starts[partition] + len(log[partition])
        if begin < end:
            wrong.append(Anomaly("unseen", f"partition {partition}: {begin} to {end - 1} were never read"))
    return wrong


def counted(found: Iterable[Anomaly]) -> dict[str, int]:
    """How many of each kind."""
    return dict(Counter(anomaly.kind for anomaly in found))
