"""Dead letters: how many and why, page by page with a filter, and throwing them away.

A list goes through the topic's partitions one after the other, oldest letters first. Its cursor is `PARTITION.OFFSET.MATCHED`:
where to go on, and how many have matched so far. A page looks at a bounded number of letters, so with a filter it may be
empty and yet not the last: only a cursor of null is the end.
"""

import logging
import re
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.operations import Given, Operation
from logsvc.listeners.api.piles import PILES_MS_MAX, read_pile
from logsvc.listeners.api.scan import Page, Pick, fill, find_time, new_page
from logsvc.listeners.api.security import Confirm, check_confirm
from logsvc.listeners.api.shown import (
    Bytes,
    ShownHeaders,
    cut_optional,
    show_bytes,
    show_headers,
    weight_of,
)
from logsvc.listeners.api.topics import describe, every_topic
from logsvc.listeners.api.where import Where, parse_where
from logsvc_common.batch import RawRecord
from logsvc_common.errors import BrokerError, InvalidRequest, UnknownTopic
from logsvc_common.letters import Letter, matches, parse_letter
from logsvc_common.messages import (
    LetterTopic,
    ListRedrives,
    ListRedrivesReply,
    PartitionDescription,
    RedriveFilter,
    TopicDescription,
    TrimTopic,
    TrimTopicReply,
)
from logsvc_common.names import is_dead_letter

logger = logging.getLogger(__name__)

LETTERS_MAX = 500
LETTERS = 50
_CURSOR = re.compile(r"([0-9]{1,6})\.([0-9]{1,18})\.([0-9]{1,18})\Z")


class TopError(msgspec.Struct, forbid_unknown_fields=True):
    """`error` is the exception's class, or the message where it has none; `message` the newest of its kind."""

    error: str
    count: int
    message: str
    exception_class: str | None


class LetterPile(msgspec.Struct, forbid_unknown_fields=True):
    """A dead-letter topic. `redriven` counts those of its letters that were put back. The errors are those of the newest
    letters, up to 1,000 of each partition."""

    topic: str
    source_topic: str | None
    group: str | None
    letters: int
    redriven: int
    oldest_ms: int | None
    newest_ms: int | None
    top_errors: list[TopError]


class LetterPiles(msgspec.Struct, forbid_unknown_fields=True):
    """Every dead-letter topic."""

    topics: list[LetterPile]


class Source(msgspec.Struct, forbid_unknown_fields=True):
    """The record that failed; null what the letter does not say, since anyone may write to the topic."""

    topic: str | None
    partition: int | None
    offset: int | None
    timestamp_ms: int | None


class ShownLetter(msgspec.Struct, forbid_unknown_fields=True):
    """A dead letter: where it lies, where it came from, why it failed, and the record as its producer sent it. `missing` says
    why nothing is left of the record."""

    letter_partition: int
    letter_offset: int
    timestamp_ms: int
    source: Source
    group: str | None
    attempts: int | None
    error: str | None
    exception_class: str | None
    stacktrace: str | None
    first_failure_ms: int | None
    redrives: int | None
    missing: str | None
    key: Bytes | None
    value: Bytes | None
    headers: ShownHeaders


class Letters(msgspec.Struct, forbid_unknown_fields=True):
    """A page of letters. `next` goes on as `after`, null at the end; `matched_so_far` counts those of the pages before too."""

    letters: list[ShownLetter]
    next: str | None
    matched_so_far: int


class LettersQuery(Where, forbid_unknown_fields=True, kw_only=True):
    """Which letters, and which page of them."""

    limit: Annotated[int, msgspec.Meta(description="Most letters on the page", ge=1, le=LETTERS_MAX)] = LETTERS
    after: Annotated[str, msgspec.Meta(description="`next` of the page before")] | None = None


class Purged(msgspec.Struct, forbid_unknown_fields=True):
    """So many letters are gone."""

    topic: str
    purged: int


async def list_dead_letters(backend: Backend, given: Given) -> LetterPiles:
    """List the dead-letter topics

    Their letters are looked at for up to two seconds; the ages and errors of a topic that was not reached come later.
    """
    known = await _known(backend)
    deadline_ms = backend.clock.monotonic_ms() + PILES_MS_MAX
    piles = []
    async for topic in every_topic(backend, is_dead_letter):
        pile = await read_pile(backend, topic, known.get(topic.topic), deadline_ms)
        piles.append(
            LetterPile(
                topic=topic.topic,
                source_topic=pile.source or None,
                group=pile.group or None,
                letters=pile.letters,
                redriven=pile.redriven,
                oldest_ms=pile.oldest_ms,
                newest_ms=pile.newest_ms,
                top_errors=[
                    TopError(
                        cut_optional(error.kind) or "", error.letters, cut_optional(error.message) or "", error.exception_class
                    )
                    for error in pile.top_errors()
                ],
            )
        )
    return LetterPiles(piles)


async def _known(backend: Backend) -> dict[str, LetterTopic]:
    """What the groups say of their letters, by topic; nothing while groups cannot be served: the letters can be read."""
    try:
        found = (await backend.ask(ListRedrives(), ListRedrivesReply)).letters
    except BrokerError:
        return {}
    return {letters.dead_letter_topic: letters for letters in found}


async def find_dead_letter_topic(backend: Backend, name: str) -> TopicDescription:
    """Raises UnknownTopic for one that is not there, or holds no dead letters."""
    found = await describe(backend, name)
    if not is_dead_letter(name):
        raise UnknownTopic(f"{name} is not a dead-letter topic; GET /api/v1/dead-letters names those there are")
    return found


async def list_letters(backend: Backend, given: Given) -> Letters:
    """Read dead letters, filtered

    By partition, and oldest first in each. Go on with `after` set to `next` until that is null; a page may be empty before.
    """
    query: LettersQuery = given.query
    topic = await find_dead_letter_topic(backend, given.path["dead_letter_topic"])
    where = parse_where(query)
    cursor = parse_cursor(query.after)
    page: Page[ShownLetter] = new_page(backend, 0, 0, query.limit)
    place = cursor.partition
    for part in topic.partitions[cursor.partition :]:
        place = part.partition
        page.end = part.end_offset
        page.position = cursor.offset if place == cursor.partition else 0
        page.position = max(page.position, await _first(backend, topic.topic, part, where))
        await fill(backend, topic.topic, place, page, _picker(place, where))
        if page.is_full or not page.complete:
            break
    matched = cursor.matched + len(page.items)
    if page.complete and place >= topic.partition_count - 1:
        return Letters(page.items, None, matched)
    return Letters(page.items, f"{place}.{page.position}.{matched}", matched)


class Cursor(NamedTuple):
    """Where a list goes on, and how many letters have matched before."""

    partition: int = 0
    offset: int = 0
    matched: int = 0


def parse_cursor(text: str | None) -> Cursor:
    """Raises InvalidRequest for what `next` never was."""
    if text is None:
        return Cursor()
    found = _CURSOR.match(text)
    if found is None:
        raise InvalidRequest("after is what `next` of the page before was")
    return Cursor._make(map(int, found.groups()))


async def _first(backend: Backend, topic: str, part: PartitionDescription, where: RedriveFilter) -> int:
    """The first offset of a partition that can match."""
    first = max([part.start_offset, *(range_start for range_start, _ in where.letters)])
    if where.since_ms > 0 and part.end_offset > part.start_offset:
        found = await find_time(backend, topic, part.partition, where.since_ms)
        first = max(first, part.end_offset if found is None else found)
    return first


def _picker(partition: int, where: RedriveFilter) -> Callable[[RawRecord], Pick[ShownLetter] | None]:
    def pick(record: RawRecord) -> Pick[ShownLetter] | None:
        letter = parse_letter(record.offset, record.timestamp, record.key, record.value, record.headers)
        if not matches(where, letter):
            return None
        return Pick(_show(partition, letter), weight_of(letter.key, letter.value, record.headers))

    return pick


def _show(partition: int, letter: Letter) -> ShownLetter:
    return ShownLetter(
        letter_partition=partition,
        letter_offset=letter.letter_offset,
        timestamp_ms=letter.died_ms,
        source=Source(cut_optional(letter.topic), letter.partition, letter.offset, letter.timestamp_ms),
        group=cut_optional(letter.group),
        attempts=letter.attempts,
        error=cut_optional(letter.error),
        exception_class=cut_optional(letter.exception_class),
        stacktrace=cut_optional(letter.stacktrace),
        first_failure_ms=letter.first_failure_ms,
        redrives=letter.redrives,
        missing=cut_optional(letter.missing),
        key=show_bytes(letter.key),
        value=show_bytes(letter.value),
        headers=show_headers(letter.headers),
    )


async def purge(backend: Backend, given: Given) -> Purged:
    """Throw away all letters a dead-letter topic holds now

    What is thrown away cannot be redriven; `confirm` repeats the topic's name.
    """
    name = given.path["dead_letter_topic"]
    check_confirm(given.body, name)
    topic = await find_dead_letter_topic(backend, name)
    purged = 0
    for part in topic.partitions:
        trimmed = await backend.ask(TrimTopic(name, part.partition, part.end_offset), TrimTopicReply)
        purged += trimmed.start_offset - part.start_offset
    logger.info("%d letters of %s purged over HTTP by %s", purged, name, given.peer)
    return Purged(name, purged)


_TOPIC = "/dead-letters/{dead_letter_topic}"
OPERATIONS = (
    Operation("GET", "/dead-letters", list_dead_letters, LetterPiles, tag="dead letters"),
    Operation("GET", f"{_TOPIC}/letters", list_letters, Letters, LettersQuery, tag="dead letters"),
    Operation("POST", f"{_TOPIC}/purge", purge, Purged, body=Confirm, tag="dead letters"),
)
