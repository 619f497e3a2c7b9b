"""What became of the records of a group, and what is wrong with it: a pure function over what its handlers did.

    unseen                a record that no handler has handled to the end, and that has no dead letter
    attempt-overspent     more attempts were counted than were made, or than the policy allows
    second-dead-letter    a second letter of one failure of one record
    key-order-broken      a record was given to a handler before an earlier one of its key was handled or dead
    phantom               a letter that is not the record it says it is
    inconsistent-offset   a handler was given something else than the log holds there
    lost-commit           the group stood further back than it had been told it stood

A record may be handled twice: at least once is what a group promises when consumers or brokers die. An attempt is made by a
handler that fails, or that never comes back: then whoever was alone with the record may have spent one without any handler
having begun (`named`, see `docs/delivery.md` on poison pills).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.history.log import Anomaly, Found, Place


class Try(NamedTuple):
    """A handler was given a record (`outcome` None), or is done with it: `ok`, `failed` or `died`. In the order of time."""

    member: str
    place: Place
    number: int
    key: bytes | None
    attempt: int
    outcome: str | None


class Named(NamedTuple):
    """A member has told the broker that it will try this record alone."""

    member: str
    place: Place


class Reset(NamedTuple):
    """Somebody asked for the group to stand there; it may have come about or not."""

    place: Place


class Standing(NamedTuple):
    """A commit was answered (`asked` False), or the broker was asked where the group stands after all events before."""

    place: Place
    asked: bool


GONE = -1


class DeadLetter(NamedTuple):
    """As found in the dead-letter topic; `place` and what follows are what it says of itself. `number` is GONE when it says
    that the record was trimmed before the letter was written, or before it could be tried again."""

    place: Place
    number: int
    attempts: int
    redrives: int


Event = Try | Named | Reset | Standing


def group_anomalies(
    events: Sequence[Event],
    letters: Sequence[DeadLetter],
    log: Mapping[int, Sequence[Found]],
    *,
    attempts_max: int,
    keyed: bool,
    redrives: int = 0,
    trimmed: Mapping[int, int] | None = None,
) -> list[Anomaly]:
    """`log`: all records that were ever in the topic, as far as they are known; those below `trimmed` need not have been read.
    `redrives` were begun. `keyed`: the group keeps the order of keys."""
    held = {Place(partition, record.offset): record for partition, found in log.items() for record in found}
    below = trimmed or {}
    return [
        *_inconsistent(events, held),
        *_phantoms(letters, held, below),
        *_unseen(events, letters, held, below),
        *_overspent(events, letters, attempts_max, redrives),
        *_second_letters(events, letters, redrives),
        *(_out_of_order(events, letters, held, below) if keyed else ()),
        *_lost_commits(events),
    ]


def _inconsistent(events: Sequence[Event], held: Mapping[Place, Found]) -> Iterable[Anomaly]:
    for event in events:
        if isinstance(event, Try) and event.outcome is None:
            there = held.get(event.place)
            if there is not None and there.number != event.number:
                yield Anomaly("inconsistent-offset", f"{_at(event.place)} is {there.number}, was handled as {event.number}")


def _phantoms(letters: Sequence[DeadLetter], held: Mapping[Place, Found], trimmed: Mapping[int, int]) -> Iterable[Anomaly]:
    for letter in letters:
        there = held.get(letter.place)
        if letter.number == GONE and letter.place.offset < trimmed.get(letter.place.partition, 0):
            continue
        if there is not None and there.number != letter.number:
            yield Anomaly("phantom", f"the letter of {_at(letter.place)} holds {letter.number}, not {there.number}")


def _unseen(
    events: Sequence[Event], letters: Sequence[DeadLetter], held: Mapping[Place, Found], trimmed: Mapping[int, int]
) -> Iterable[Anomaly]:
    over = {event.place for event in events if isinstance(event, Try) and event.outcome == "ok"}
    over |= {letter.place for letter in letters}
    for place in sorted(held.keys() - over):
        if place.offset >= trimmed.get(place.partition, 0):
            yield Anomaly("unseen", f"{_at(place)} was neither handled nor dead-lettered")


def _overspent(events: Sequence[Event], letters: Sequence[DeadLetter], attempts_max: int, redrives: int) -> Iterable[Anomaly]:
    made: Counter[Place] = Counter()
    named: dict[Place, set[str]] = {}
    for event in events:
        match event:
            case Named(member, place):
                named.setdefault(place, set()).add(member)
            case Try(member, place, _, _, _, "ok" | "failed" | "died" as outcome):
                made[place] += outcome != "ok"
                if outcome != "died":
                    named.get(place, set()).discard(member)
            case Try(_, place, _, _, attempt, None):
                possible = made[place] + len(named.get(place, ()))
                if attempt > attempts_max or attempt - 1 > possible:
                    yield Anomaly("attempt-overspent", f"{_at(place)} came as attempt {attempt}, {possible} were made before")
    spent: Counter[Place] = Counter()
    for letter in letters:
        if letter.number == GONE:
            continue  # Its last attempt was that it could not be tried.
        spent[letter.place] += letter.attempts
        if letter.attempts > attempts_max:
            yield Anomaly("attempt-overspent", f"{_at(letter.place)} died of {letter.attempts} attempts of {attempts_max}")
        if letter.redrives > redrives:
            yield Anomaly("phantom", f"the letter of {_at(letter.place)} says {letter.redrives} redrives of {redrives}")
    for place, count in spent.items():
        possible = made[place] + len(named.get(place, ()))
        if count > possible:
            yield Anomaly("attempt-overspent", f"letters of {_at(place)} say {count} attempts, {possible} were made")


def _second_letters(events: Sequence[Event], letters: Sequence[DeadLetter], redrives: int) -> Iterable[Anomaly]:
    resets = [event.place for event in events if isinstance(event, Reset)]
    for (place, number_of), count in Counter((letter.place, letter.redrives) for letter in letters).items():
        again = sum(reset.partition == place.partition and reset.offset <= place.offset for reset in resets)
        if count > 1 + again:
            yield Anomaly("second-dead-letter", f"{_at(place)} has {count} letters of its failure after {number_of} redrives")


def _out_of_order(
    events: Sequence[Event], letters: Sequence[DeadLetter], held: Mapping[Place, Found], trimmed: Mapping[int, int]
) -> Iterable[Anomaly]:
    """Judged when a record is given to a handler: each earlier one of its key is over, handled or out of attempts."""
    lanes: dict[tuple[int, bytes], list[Place]] = {}
    for place in sorted(held):
        if (key := held[place].key) is not None:
            lanes.setdefault((place.partition, key), []).append(place)
    attempts = {letter.place: letter.attempts for letter in sorted(letters, key=lambda letter: -letter.attempts)}
    handled: set[Place] = set()
    spent: Counter[Place] = Counter()
    for event in events:
        match event:
            case Named(_, place):
                spent[place] += 1
            case Try(_, place, _, _, _, "ok"):
                handled.add(place)
            case Try(_, place, _, _, _, "failed" | "died"):
                spent[place] += 1
            case Try(member, place, _, bytes() as key, _, None):
                for before in lanes.get((place.partition, key), ()):
                    if before.offset >= place.offset:
                        break
                    over = before in handled or (before in attempts and spent[before] >= attempts[before])
                    if not over and before.offset >= trimmed.get(before.partition, 0):
                        yield Anomaly("key-order-broken", f"{member} began {_at(place)} before {_at(before)} was over")


def _lost_commits(events: Sequence[Event]) -> Iterable[Anomaly]:
    told: dict[int, int] = {}
    for event in events:
        match event:
            case Reset(place):
                told[place.partition] = min(told.get(place.partition, -1), place.offset)
            case Standing(place, False):
                told[place.partition] = max(told.get(place.partition, -1), place.offset)
            case Standing(place, True):
                if place.offset < told.get(place.partition, -1):
                    detail = f"stands at {place.offset}, had committed {told[place.partition]}"
                    yield Anomaly("lost-commit", f"partition {place.partition} {detail}")


def _at(place: Place) -> str:
    return f"{place.partition}/{place.offset}"
