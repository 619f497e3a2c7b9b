"""A batch sent twice is written once (KIP-98), across restarts too."""

import pytest

from logsvc.storage import producer_state
from logsvc_common.errors import DuplicateSequence, InvalidProducerEpoch, OutOfOrderSequence
from tests.storage_support import FOLDER, append, new_disk, open_log


def send(log, sequence: int, *, count: int = 2, producer_id: int = 7, epoch: int = 0, now_ms: int = 0):  # type: ignore[no-untyped-def]
    return append(log, [b"x"] * count, producer=(producer_id, epoch, sequence), now_ms=now_ms)


def test_a_retry_returns_the_first_offsets_and_writes_nothing() -> None:
    log = open_log(new_disk())
    for number in range(5):
        send(log, 2 * number)
    for number in range(5):
        again = send(log, 2 * number)
        assert again == (2 * number, 2 * number + 1, True)
    assert log.end_offset == 10


def test_only_the_last_five_batches_are_remembered() -> None:
    log = open_log(new_disk())
    for number in range(6):
        send(log, 2 * number)
    with pytest.raises(DuplicateSequence, match="sequence 0 again, expected 12"):
        send(log, 0)


def test_old_and_ahead_are_told_apart_where_sequences_wrap() -> None:
    log = open_log(new_disk())
    last = 2**31 - 2
    send(log, last)  # two records: the next sequence is 0
    with pytest.raises(DuplicateSequence):
        send(log, last - 2)
    with pytest.raises(OutOfOrderSequence):
        send(log, 2)
    assert send(log, 0).base_offset == 2


def test_a_gap_is_refused_until_the_missing_batch_comes() -> None:
    log = open_log(new_disk())
    send(log, 0)
    with pytest.raises(OutOfOrderSequence, match="sent sequence 4, expected 2"):
        send(log, 4)
    send(log, 2)
    assert send(log, 4).base_offset == 4


def test_a_batch_cut_otherwise_is_no_duplicate() -> None:
    log = open_log(new_disk())
    send(log, 0, count=3)
    with pytest.raises(DuplicateSequence):
        send(log, 0, count=2)


def test_an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() -> None:
    log = open_log(new_disk())
    send(log, 0, epoch=3)
    with pytest.raises(InvalidProducerEpoch, match="epoch 3"):
        send(log, 2, epoch=2)
    with pytest.raises(OutOfOrderSequence, match="not 0"):
        send(log, 2, epoch=4)
    assert send(log, 0, epoch=4).base_offset == 2


def test_an_unknown_producer_may_begin_anywhere() -> None:
    assert send(open_log(new_disk()), 12_345).base_offset == 0


def test_sequences_wrap_to_zero_after_the_largest_int32() -> None:
    log = open_log(new_disk())
    top = (1 << 31) - 1
    send(log, top - 1)
    assert send(log, 0).base_offset == 2
    assert send(log, top - 1).duplicate


def test_a_batch_that_crosses_the_wrap_is_followed_rightly() -> None:
    log = open_log(new_disk())
    top = (1 << 31) - 1
    send(log, top, count=3)
    assert send(log, 2).base_offset == 3


@pytest.mark.parametrize("ending", ["close", "kill", "kill without checkpoint"])
def test_duplicates_are_known_after_a_restart(ending: str) -> None:
    disk = new_disk()
    log = open_log(disk)
    for number in range(30):
        send(log, 2 * number)
        if number == 22:
            log.write_checkpoint()
    log.sync()
    if ending == "close":
        log.close()
    if ending == "kill without checkpoint":
        disk.remove(f"{FOLDER}/checkpoint")
    log = open_log(disk.kill())
    for number in range(25, 30):
        assert send(log, 2 * number) == (2 * number, 2 * number + 1, True)
    assert send(log, 60).base_offset == 60


def test_a_refused_batch_is_not_remembered() -> None:
    disk = new_disk()
    log = open_log(disk, max_message_bytes=300)
    send(log, 0)
    disk.fail("write", error=28)
    with pytest.raises(Exception, match="no room"):
        send(log, 2)
    assert send(log, 2) == (2, 3, False)


def test_old_producers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(new_disk())
    send(log, 0, producer_id=1, now_ms=0)
    send(log, 0, producer_id=2, now_ms=producer_state.PRODUCER_EXPIRATION_MS)
    log.apply_retention(producer_state.PRODUCER_EXPIRATION_MS + 1)
    assert send(log, 1_000, producer_id=1).duplicate is False
    with pytest.raises(OutOfOrderSequence):
        send(log, 1_000, producer_id=2)


def test_the_number_of_producers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_state, "PRODUCERS_MAX", 3)
    log = open_log(new_disk())
    for producer_id in range(4):
        send(log, 0, producer_id=producer_id)
    assert send(log, 77, producer_id=0).duplicate is False  # the one not heard of for longest was forgotten
    with pytest.raises(OutOfOrderSequence):
        send(log, 77, producer_id=3)
