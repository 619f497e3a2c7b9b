"""Fetches while peers that do not read hold much: small from half of what may be held, empty at all of it, as ever below."""

from logsvc.broker.fetch import CROWDED_FETCH_BYTES, CROWDED_WAIT_MS
from tests.unit.broker.test_throttle import Shop

BATCH_BYTES = 100_000
BATCHES = 10
HELD_BYTES_MAX = 1 << 20


def shop_holding(held_bytes: int) -> Shop:
    """A broker with a megabyte of records, whose peers have not taken so much."""
    shop = Shop(queue_bytes_max=HELD_BYTES_MAX)
    for _ in range(BATCHES):
        shop.wait(shop.produce(b"w", BATCH_BYTES))
    shop.service.broker._fetch._held_bytes = lambda: held_bytes
    return shop


def brought(shop: Shop) -> int:
    return sum(len(frame) for frame in shop.wait(shop.fetch(b"c")).payload)


def test_with_room_an_answer_brings_what_was_asked_for() -> None:
    assert brought(shop_holding(HELD_BYTES_MAX // 2)) > (BATCHES - 1) * BATCH_BYTES


def test_from_half_on_answers_are_small_so_that_those_who_read_go_on() -> None:
    assert 0 < brought(shop_holding(HELD_BYTES_MAX // 2 + 1)) <= CROWDED_FETCH_BYTES


def test_when_all_is_held_answers_are_empty_and_ask_to_wait() -> None:
    shop = shop_holding(HELD_BYTES_MAX)
    answer = shop.wait(shop.fetch(b"c"))
    assert list(answer.payload) == []
    assert answer.body.throttle_ms == CROWDED_WAIT_MS
    # A poll that was parked is answered the same way, at its end.
    parked = shop.fetch(b"c", BATCHES, 5_000)
    assert shop.wait(parked).body.throttle_ms == CROWDED_WAIT_MS


def test_requests_of_this_process_are_answered_whole() -> None:
    shop = shop_holding(HELD_BYTES_MAX)
    # Given the empty address that requests of the HTTP API come from
    assert sum(len(frame) for frame in shop.wait(shop.fetch(b"")).payload) > (BATCHES - 1) * BATCH_BYTES
