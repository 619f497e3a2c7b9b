"""Whose letters a topic holds: read from its oldest one, and not again while that is the same."""

import pytest

from logsvc.broker import letter_piles
from logsvc.broker.letter_piles import LetterPiles
from logsvc.storage.log_directory import LogDirectory
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import RecordData, decode, encode, parse_header
from logsvc_common.letters import GROUP, TOPIC

NOW_MS = 1_000
LETTER = [(TOPIC, b"t"), (GROUP, b"g")]


class Shelf:
    """One dead-letter topic."""

    def __init__(self) -> None:
        self.logs = LogDirectory.open(SimulatedDisk(), "data", now_ms=NOW_MS, reserve_bytes=0)
        self.logs.create_topic("dlq.t.g", 1, {})
        self.log = self.logs.partition("dlq.t.g", 0)
        self.piles = LetterPiles(self.logs)

    def put(self, headers: list[tuple[str, bytes]]) -> None:
        batch = encode([RecordData(b"v", None, NOW_MS, list(headers))])
        self.log.append(batch, parse_header(batch), NOW_MS)
        self.log.sync()

    def owners(self) -> list[tuple[str, str]]:
        return [(pile.source_topic, pile.group) for pile in self.piles.all()]


@pytest.mark.parametrize("headers", [[], [(TOPIC, b"other"), (GROUP, b"g")]], ids=["no letter", "of another topic"])
def test_what_is_no_letter_is_looked_at_once(headers: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counting(batch: bytes) -> object:
        looked.append(parse_header(batch).base_offset)
        return decode(batch)

    monkeypatch.setattr(letter_piles, "decode", counting)
    shelf = Shelf()
    shelf.put(headers)
    assert [shelf.owners() for _ in range(3)] == [[], [], []]
    assert looked == [0]
    # A letter behind it is believed when it is the oldest.
    shelf.put(LETTER)
    assert shelf.owners() == []
    shelf.log.trim(1)
    assert shelf.owners() == [("t", "g")]
    assert looked == [0, 1]
