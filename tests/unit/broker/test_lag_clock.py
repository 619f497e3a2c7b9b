"""Lag in records and in time: what it is in every situation a group can be in, and what it costs to know."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc.broker.lag_clock import LagClock, Lags
from logsvc.broker.log_table import LogTable
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import PartitionLog
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import RecordData, encode, parse_header

NOW_MS = 1_800_000_000_000
GROUP = "g"


class World:
    """A data folder, a clock that only reading moves, and a count of the reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, *, read_seconds: float = 0.0) -> None:
        self.logs = LogDirectory.open(SimulatedDisk(), "data", now_ms=NOW_MS)
        self.seconds = 0.0
        self.reads: list[tuple[str, int, int]] = []
        self.table = LogTable(self.logs)
        self.clock = LagClock(self.table, lambda: self.seconds)
        self.read_seconds = read_seconds
        if monkeypatch is not None:
            original = PartitionLog.timestamp_at

            def counted(log: PartitionLog, offset: int) -> int | None:
                self.reads.append((log.topic, log.partition, offset))
                self.seconds += self.read_seconds
                return original(log, offset)

            monkeypatch.setattr(PartitionLog, "timestamp_at", counted)

    def append(self, topic: str, partition: int, *times_ms: int, codec: int = 0) -> None:
        log = self.logs.partition(topic, partition)
        batch = encode([RecordData(b"value", None, time_ms) for time_ms in times_ms], codec=codec)
        log.append(batch, parse_header(batch), NOW_MS)
        log.sync()

    def look(self, committed: dict[tuple[str, int], int], group: str = GROUP) -> Lags:
        """One pass over one group."""
        self.table.refresh()
        lags = self.clock.lags(group, 0, list(committed), list(committed.values()))
        self.clock.end_group(group, 1)
        for _ in self.clock.read([(lags, lags.unread())]):
            pass
        return lags

    def ages(self, committed: dict[tuple[str, int], int], now_ms: int = NOW_MS, group: str = GROUP) -> list[int | None]:
        return self.look(committed, group).ages_ms(now_ms)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    made.logs.create_topic("t", 3)
    return made


class TestWhatItIs:
    def test_a_group_that_has_caught_up_has_none_however_old_the_last_record_is(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 90_000_000)
        assert world.ages({("t", 0): 1}) == [0]
        assert world.reads == []

    def test_a_stopped_group_waits_for_the_first_record_that_came_after_it_stopped(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 60_000)
        world.append("t", 0, NOW_MS - 40_000)
        world.append("t", 0, NOW_MS - 1_000)
        lags = world.look({("t", 0): 1})
        assert lags.lags == [2]
        assert lags.ages_ms(NOW_MS) == [40_000]
        assert lags.ages_ms(NOW_MS + 5_000) == [45_000]

    def test_a_burst_after_silence_counts_from_the_burst_not_from_the_last_commit(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 3_600_000)
        assert world.ages({("t", 0): 1}) == [0]
        world.append("t", 0, *[NOW_MS - 200] * 1_000)
        assert world.ages({("t", 0): 1}) == [200]

    def test_a_commit_within_a_compressed_batch_counts_from_its_own_record(self, world: World) -> None:
        world.append("t", 0, *(NOW_MS - 100_000 + 1_000 * n for n in range(100)), codec=4)
        assert world.ages({("t", 0): 30}) == [70_000]
        assert world.ages({("t", 0): 99}) == [1_000]

    def test_a_producer_whose_clock_is_ahead_makes_no_negative_lag_and_one_behind_no_wrong_order(self, world: World) -> None:
        world.append("t", 0, NOW_MS + 5_000_000)
        world.append("t", 0, NOW_MS - 5_000_000)
        assert world.ages({("t", 0): 0}) == [0]
        assert world.ages({("t", 0): 0}, NOW_MS + 5_001_000) == [1_000]
        assert world.ages({("t", 0): 1}) == [5_000_000]

    def test_what_retention_has_removed_is_not_waited_for(self, world: World) -> None:
        for age_ms in (90_000, 60_000, 30_000):
            world.append("t", 0, NOW_MS - age_ms)
        world.logs.partition("t", 0).trim(2)
        lags = world.look({("t", 0): 0})
        assert (lags.lags, lags.ages_ms(NOW_MS)) == ([1], [30_000])

    def test_positions_in_topics_that_are_gone_are_left_out_and_the_others_keep_theirs(self, world: World) -> None:
        world.logs.create_topic("u", 2)
        world.append("u", 1, NOW_MS - 7_000)
        world.append("t", 2, NOW_MS - 9_000)
        committed = {("t", 2): 0, ("gone", 0): 5, ("u", 1): 0, ("t", 99): 1}
        lags = world.look(committed)
        assert list(lags.run.where) == [("t", 2), ("u", 1)]
        assert lags.ages_ms(NOW_MS) == [9_000, 7_000]

    def test_a_topic_made_anew_under_the_same_name_is_read_anew(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 50_000)
        assert world.ages({("t", 0): 0}) == [50_000]
        world.logs.delete_topic("t")
        world.logs.create_topic("t", 3)
        world.append("t", 0, NOW_MS - 10)
        assert world.ages({("t", 0): 0}) == [10]

    def test_a_partition_whose_disk_failed_has_a_lag_in_records_and_none_in_time(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 50_000)
        world.logs.partition("t", 0).abandon()
        lags = world.look({("t", 0): 0})
        assert (lags.lags, lags.ages_ms(NOW_MS)) == ([1], [None])


class TestWhatItCosts:
    def test_an_unchanged_commit_is_read_once(self, world: World) -> None:
        for _ in range(5):
            world.append("t", 0, NOW_MS - 1_000)
        for _ in range(10):
            world.ages({("t", 0): 2, ("t", 1): 0})
        assert world.reads == [("t", 0, 2)]
        world.append("t", 0, NOW_MS)  # the end moves, the first record not consumed does not
        world.ages({("t", 0): 2})
        assert len(world.reads) == 1
        world.ages({("t", 0): 3})
        assert world.reads[1:] == [("t", 0, 3)]

    def test_groups_at_the_same_record_share_its_read_within_a_pass(self, world: World) -> None:
        world.append("t", 0, NOW_MS - 1_000)
        world.table.refresh()
        every = [world.clock.lags(f"g{n}", 0, [("t", 0)], [0]) for n in range(50)]
        for _ in world.clock.read([(lags, lags.unread()) for lags in every]):
            pass
        assert len(world.reads) == 1
        assert [lags.ages_ms(NOW_MS) for lags in every] == [[1_000]] * 50

    def test_a_partition_more_or_less_costs_the_others_no_read(self, world: World) -> None:
        for partition in range(3):
            world.append("t", partition, NOW_MS - 1_000)
        world.ages({("t", 0): 0, ("t", 1): 0})
        world.ages({("t", 0): 0, ("t", 1): 0, ("t", 2): 0})
        world.ages({("t", 1): 0, ("t", 2): 0})
        world.logs.create_topic("a", 5)  # every number in the table changes
        assert world.ages({("t", 1): 0, ("t", 2): 0}) == [1_000, 1_000]
        assert len(world.reads) == 3

    def test_a_pass_reads_no_longer_than_its_budget_and_everyones_turn_comes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, read_seconds=0.001)
        world.logs.create_topic("t", 100)
        where = [("t", partition) for partition in range(100)]
        for partition in range(100):
            world.append("t", partition, NOW_MS - 10_000)
            world.append("t", partition, NOW_MS - 1_000)
        first = world.ages(dict.fromkeys(where, 0))
        assert len(world.reads) <= 16
        assert first.count(None) == world.clock.deferred >= 84
        for _ in range(6):
            last = world.ages(dict.fromkeys(where, 0))
        assert last == [10_000] * 100
        assert world.clock.deferred == 0
        # Everyone moves: who is not read yet keeps the age of the record before, which is older.
        moved = world.ages(dict.fromkeys(where, 1))
        assert set(moved) == {1_000, 10_000}
        for _ in range(6):
            moved = world.ages(dict.fromkeys(where, 1))
        assert moved == [1_000] * 100

    def test_a_group_that_was_reset_to_earlier_records_shows_no_age_until_they_are_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, read_seconds=0.001)
        world.logs.create_topic("t", 40)
        where = [("t", partition) for partition in range(40)]
        for partition in range(40):
            world.append("t", partition, NOW_MS - 10_000)
            world.append("t", partition, NOW_MS - 1_000)
        for _ in range(4):
            world.ages(dict.fromkeys(where, 1))
        assert set(world.ages(dict.fromkeys(where, 0))) == {10_000, None}
        for _ in range(3):
            last = world.ages(dict.fromkeys(where, 0))
        assert last == [10_000] * 40

    def test_the_event_loop_is_given_back_between_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, read_seconds=0.0001)
        world.logs.create_topic("t", 50)
        for partition in range(50):
            world.append("t", partition, NOW_MS)
        world.table.refresh()
        lags = world.clock.lags(GROUP, 0, [("t", partition) for partition in range(50)], [0] * 50)
        reads = []
        for _ in world.clock.read([(lags, lags.unread())]):
            reads.append(len(world.reads) - sum(reads))
        assert max(reads) <= 3
        assert sum(reads) == 50

    def test_groups_that_are_gone_are_forgotten(self, world: World) -> None:
        world.append("t", 0, NOW_MS)
        world.ages({("t", 0): 0}, group="gone")
        world.ages({("t", 0): 0})
        world.clock.keep([GROUP])
        assert world.clock.readings("gone") == {}
        assert len(world.clock.readings(GROUP)) == 1
        world.clock.end_group(GROUP, 0)
        assert world.clock.readings(GROUP) == {}


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(-100_000, 5_000), min_size=1, max_size=6).map(sorted), min_size=1, max_size=6),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(0, 10),
)
def test_it_is_what_a_reader_of_the_whole_log_would_say(
    batches: Sequence[Sequence[int]], commits: Sequence[int], trimmed: int
) -> None:
    world = World()
    world.logs.create_topic("t", 1)
    times: list[int] = []
    for offsets_ms in batches:
        world.append("t", 0, *(NOW_MS + offset_ms for offset_ms in offsets_ms))
        times += [NOW_MS + offset_ms for offset_ms in offsets_ms]
    start = min(trimmed, len(times))
    world.logs.partition("t", 0).trim(start)
    for commit in commits:
        committed = min(commit, len(times))
        lags = world.look({("t", 0): committed})
        first = max(committed, start)
        assert lags.lags == [len(times) - first]
        (age_ms,) = lags.ages_ms(NOW_MS)
        expected = max(0, NOW_MS - times[first]) if first < len(times) else 0
        assert age_ms is not None
        # Records of one batch within a tenth of a second are told as its first: see `LogReader.timestamp_at`.
        assert abs(age_ms - expected) <= 100
