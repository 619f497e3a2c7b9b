"""What a dead-letter topic holds, counted from its newest letters, and remembered until it changes.

A console asks every few seconds. Reading a thousand letters of each partition anew each time would cost more than the
rest of the page, so a pile is kept with the offsets it was made from; other offsets make it anew.
"""

from collections.abc import Sequence

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.scan import Page, Pick, fill, new_page
from logsvc.listeners.api.topics import record_count
from logsvc_common.batch import RawRecord
from logsvc_common.errors import LogsvcError
from logsvc_common.letter_pile import ERRORS_LETTERS_MAX, Pile
from logsvc_common.letters import Letter, parse_letter
from logsvc_common.messages import LetterTopic, PartitionDescription, TopicDescription

PILES_MS_MAX = 2_000  # for the piles of one list; those not reached have their turn when it is asked for again
PILE_LETTERS_MAX = 5_000  # read for one pile, all its partitions together


async def read_pile(backend: Backend, topic: TopicDescription, known: LetterTopic | None, deadline_ms: int) -> Pile:
    """The letters of `topic`, with what the group's coordinator knows of them. After `deadline_ms`, monotonic, nothing is read:
    a pile that is not kept has its number of letters only."""
    key = (*((part.start_offset, part.end_offset) for part in topic.partitions),)
    pile = backend.piles.get(topic.topic, key)
    if pile is None and backend.clock.monotonic_ms() >= deadline_ms:
        pile = Pile(topic.topic, record_count(topic.partitions))
    elif pile is None:
        pile = await _count(backend, topic.topic, topic.partitions)
        backend.piles.put(topic.topic, key, pile)
    if known is not None:
        pile.source, pile.group, pile.redriven = known.topic, known.group, known.redriven
    return pile


async def _count(backend: Backend, topic: str, partitions: Sequence[PartitionDescription]) -> Pile:
    pile = Pile(topic)
    left = PILE_LETTERS_MAX
    for part in partitions:
        count = part.end_offset - part.start_offset
        pile.letters += count
        if not count or left <= 0:
            continue
        newest = max(part.start_offset, part.end_offset - min(ERRORS_LETTERS_MAX, left))
        try:
            page = await _read(backend, topic, part, newest, left)
            left -= len(page.items)
            for letter in page.items:
                pile.add(letter)
                pile.count(letter)
            # The ages are those of the first and the last letter, whatever lies between.
            for offset in (part.start_offset, part.end_offset - 1):
                if not newest <= offset < page.position:
                    for letter in (await _read(backend, topic, part, offset, 1)).items:
                        pile.add(letter)
        except LogsvcError as error:
            if error.retriable:
                raise
            # It cannot be read; that is told by the topic's state, and its other partitions still count.
    return pile


async def _read(backend: Backend, topic: str, part: PartitionDescription, begin: int, limit: int) -> Page[Letter]:
    page: Page[Letter] = new_page(backend, begin, part.end_offset, limit)

    def pick(record: RawRecord) -> Pick[Letter]:
        # Only what is counted is kept: a letter's record may be large.
        letter = parse_letter(record.offset, record.timestamp, None, None, record.headers)
        return Pick(letter._replace(headers=(), stacktrace=None), 0)

    await fill(backend, topic, part.partition, page, pick)
    return page
