"""The checker itself: a good history passes, and each way of spoiling it is caught under its name."""

import random

import pytest

from tests.history.log import Anomaly, Found, Place, Polled, Sent, anomalies, counted, reading_anomalies


class History:
    """A run without fault: 200 records of 10 keys in 3 partitions, all acknowledged."""

    def __init__(self) -> None:
        self.sent = [Sent(number, b"k%d" % (number % 10)) for number in range(200)]
        self.acked: dict[int, list[Place]] = {}
        self.failed: list[int] = []
        self.log: dict[int, list[Found]] = {0: [], 1: [], 2: []}
        for record in self.sent:
            partition = record.number % 10 % 3
            offset = len(self.log[partition])
            self.log[partition].append(Found(record.number, record.key, offset))
            self.acked[record.number] = [Place(partition, offset)]

    def found(self) -> list[Anomaly]:
        return anomalies(self.sent, self.acked, self.failed, self.log)

    def kinds(self) -> set[str]:
        return set(counted(self.found()))

    def renumber(self, partition: int) -> None:
        """Close the gaps in a partition, as if the broker had never seen what is missing; acknowledgements follow."""
        self.log[partition] = [record._replace(offset=offset) for offset, record in enumerate(self.log[partition])]
        for record in self.log[partition]:
            if record.number in self.acked:
                self.acked[record.number] = [Place(partition, record.offset)]


@pytest.fixture
def history() -> History:
    return History()


def test_a_good_history_has_no_anomaly(history: History) -> None:
    assert history.found() == []


def test_a_lost_acknowledged_record_is_caught_at_any_place() -> None:
    for number in range(200):
        history = History()
        partition = number % 10 % 3
        history.log[partition] = [record for record in history.log[partition] if record.number != number]
        history.renumber(partition)
        assert "lost-write" in history.kinds()


def test_a_lost_tail_is_caught(history: History) -> None:
    lost = history.log[1][-5:]
    del history.log[1][-5:]
    assert counted(history.found()) == {"lost-write": len(lost)}


def test_a_duplicate_is_caught(history: History) -> None:
    history.log[0].append(history.log[0][-1]._replace(offset=len(history.log[0])))
    assert history.kinds() == {"duplicate"}


def test_a_batch_written_twice_is_caught_as_duplicate_and_as_out_of_order(history: History) -> None:
    again = [record._replace(offset=record.offset + len(history.log[0])) for record in history.log[0]]
    history.log[0] += again
    assert history.kinds() == {"duplicate", "nonmonotonic-send"}


def test_a_gap_is_caught_even_when_nothing_acknowledged_is_missing(history: History) -> None:
    # Given a record that was reported failed, and whose offset is a hole
    hole = history.log[2].pop(7)
    del history.acked[hole.number]
    history.failed.append(hole.number)
    assert history.kinds() == {"gap"}


def test_a_log_that_does_not_start_at_its_start_is_caught(history: History) -> None:
    first = history.log[0].pop(0)
    assert history.kinds() == {"gap", "lost-write"}
    assert any(str(first.number) in anomaly.detail for anomaly in history.found())


def test_two_records_of_a_key_the_wrong_way_round_are_caught(history: History) -> None:
    records = history.log[0]
    earlier, later = [i for i, record in enumerate(records) if record.key == b"k0"][3:5]
    records[earlier], records[later] = records[later], records[earlier]
    history.renumber(0)
    assert history.kinds() == {"nonmonotonic-send"}


def test_a_key_in_two_partitions_is_caught(history: History) -> None:
    moved = history.log[0].pop()
    history.log[1].append(moved._replace(offset=len(history.log[1])))
    history.renumber(0)
    history.renumber(1)
    assert history.kinds() == {"nonmonotonic-send"}


def test_a_record_at_another_offset_than_acknowledged_is_caught(history: History) -> None:
    history.acked[42] = [history.acked[42][0]._replace(offset=3)]
    assert history.kinds() == {"inconsistent-offset"}


def test_two_records_acknowledged_at_one_place_are_caught(history: History) -> None:
    history.acked[42].append(history.acked[41][0])
    assert history.kinds() == {"inconsistent-offset"}


def test_a_record_nobody_sent_is_caught(history: History) -> None:
    history.log[1].append(Found(9_999, b"k", len(history.log[1])))
    assert history.kinds() == {"phantom"}


def test_a_record_with_another_value_or_key_is_caught(history: History) -> None:
    history.log[1][4] = history.log[1][4]._replace(intact=False)
    assert history.kinds() == {"phantom"}
    history.log[1][4] = history.log[1][4]._replace(intact=True, key=b"other")
    assert "phantom" in history.kinds()


def test_a_record_the_client_forgot_is_caught(history: History) -> None:
    history.sent.append(Sent(500, b"k0"))
    assert history.kinds() == {"missing"}


@pytest.mark.parametrize("arrived", [True, False])
def test_a_failed_delivery_may_be_there_or_not(history: History, arrived: bool) -> None:
    history.sent.append(Sent(500, b"k0"))
    history.failed.append(500)
    if arrived:
        history.log[0].append(Found(500, b"k0", len(history.log[0])))
    assert history.found() == []


def test_any_single_change_to_a_history_is_caught() -> None:
    # A mutant of every kind at random places: not one of them passes.
    rng = random.Random(20)
    for _ in range(300):
        history = History()
        partition = rng.randrange(3)
        records = history.log[partition]
        at = rng.randrange(len(records))
        match rng.randrange(4):
            case 0:
                del records[at]
            case 1:
                records.insert(at, records[at])
            case 2:
                other = (at + 1 + rng.randrange(len(records) - 1)) % len(records)
                records[at], records[other] = records[other], records[at]
            case _:
                records[at] = records[at]._replace(offset=records[at].offset + 1)
        assert history.found() != []


# Readers


def read_through(history: History) -> list[Polled]:
    """What a reader sees that takes a record of each partition in turn."""
    longest = max(map(len, history.log.values()))
    return [Polled(p, records[i]) for i in range(longest) for p, records in history.log.items() if i < len(records)]


def reading_kinds(polled: list[Polled], history: History, *, again_allowed: bool) -> set[str]:
    return set(counted(reading_anomalies(polled, history.log, again_allowed=again_allowed)))


@pytest.mark.parametrize("again_allowed", [True, False])
def test_a_reader_that_saw_everything_once_in_order_is_fine(history: History, again_allowed: bool) -> None:
    assert reading_kinds(read_through(history), history, again_allowed=again_allowed) == set()


def test_being_handed_records_again_is_a_members_right_and_nobody_elses(history: History) -> None:
    polled = read_through(history)
    again = polled[:50] + polled[20:]
    assert reading_kinds(again, history, again_allowed=True) == set()
    assert reading_kinds(again, history, again_allowed=False) == {"nonmonotonic-poll"}


@pytest.mark.parametrize("again_allowed", [True, False])
def test_a_record_passed_over_is_caught_at_any_place(history: History, again_allowed: bool) -> None:
    polled = read_through(history)
    for at in range(len(polled)):
        kinds = reading_kinds(polled[:at] + polled[at + 1 :], history, again_allowed=again_allowed)
        assert kinds in ({"poll-skip"}, {"unseen"})


@pytest.mark.parametrize("again_allowed", [True, False])
def test_a_record_passed_over_and_handed_out_late_is_caught(history: History, again_allowed: bool) -> None:
    polled = read_through(history)
    polled[10], polled[13] = polled[13], polled[10]
    assert "poll-skip" in reading_kinds(polled, history, again_allowed=again_allowed)


def test_a_reader_that_stops_early_is_caught(history: History) -> None:
    assert reading_kinds(read_through(history)[:-1], history, again_allowed=True) == {"unseen"}


def test_a_reader_that_saw_something_else_is_caught(history: History) -> None:
    polled = read_through(history)
    polled[5] = polled[5]._replace(found=polled[5].found._replace(number=7_777))
    assert reading_kinds(polled, history, again_allowed=True) == {"inconsistent-offset"}


# Trimmed logs


def test_what_was_trimmed_is_not_looked_for(history: History) -> None:
    polled = read_through(history)
    del history.log[0][:5]
    starts = {0: 5, 1: 0, 2: 0}
    assert anomalies(history.sent, history.acked, history.failed, history.log, starts) == []
    # A reader may have seen it, or have come too late.
    assert reading_anomalies(polled, history.log, again_allowed=False, start_offset=starts) == []
    late = [record for record in polled if record.partition != 0 or record.found.offset >= 5]
    assert reading_anomalies(late, history.log, again_allowed=False, start_offset=starts) == []


def test_what_was_not_trimmed_is(history: History) -> None:
    polled = read_through(history)
    starts = {0: 5, 1: 0, 2: 0}
    del history.log[0][:6]
    kinds = set(counted(anomalies(history.sent, history.acked, history.failed, history.log, starts)))
    assert kinds == {"lost-write", "gap"}
    late = [record for record in polled if record.partition != 0 or record.found.offset >= 7]
    history.log[0] = [Found(polled.found.number, polled.found.key, polled.found.offset) for polled in polled if polled[0] == 0][
        5:
    ]
    found = reading_anomalies(late, history.log, again_allowed=False, start_offset=starts)
    assert set(counted(found)) == {"poll-skip"}
