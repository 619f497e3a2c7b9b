"""The partition log against a plain list, whatever is done to it in whatever order (hypothesis, stateful).

The model is a list of (value, timestamp), a start and a durable end. The log must agree with it after every step: appends of
any shape, idempotent batches sent again, syncs, reads by offset and by time, trims, retention, clean restarts, kills, power
cuts and lost indexes.
"""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common import batch as batches
from logsvc_common.batch import RecordData
from tests.storage_support import FOLDER, new_disk, open_log, read_all

PRODUCER_ID = 11
records = st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 5_000)), min_size=1, max_size=5)


class PartitionLogMachine(RuleBasedStateMachine):
    """Rules are what the broker does; `check_*` are what consumers may rely on."""

    def __init__(self) -> None:
        super().__init__()
        self.disk: SimulatedDisk = new_disk()
        self.log: PartitionLog
        self.written: list[tuple[bytes, int]] = []
        self.start = 0
        self.durable = 0
        self.sequence = 0
        self.epoch = 0
        self.sent: list[tuple[bytes, int, int]] = []  # idempotent batches: bytes, first offset, last offset
        self.now_ms = 10_000

    @initialize(
        segment_bytes=st.sampled_from([1_024, 2_000, 1 << 20]),
        interval=st.sampled_from([0, 1, 150, 4_096]),
        flush=st.sampled_from(["always", "os"]),
    )
    def begin(self, segment_bytes: int, interval: int, flush: str) -> None:
        self.settings = {
            "segment_bytes": segment_bytes,
            "index_interval_bytes": interval,
            "flush": flush,
            "retention_ms": -1,
            "retention_bytes": 3_000,
            "segment_ms": 1_000_000,
        }
        self.open()

    def open(self) -> None:
        self.log = open_log(self.disk, **self.settings)
        assert self.log.state is PartitionState.ONLINE, self.log.state_reason

    @rule(content=records, codec=st.sampled_from([0, 0, 1]))
    def append(self, content: list[tuple[bytes, int]], codec: int) -> None:
        raw = batches.encode([RecordData(value, timestamp_ms=time) for value, time in content], codec=codec)
        result = self.log.append(raw, batches.parse_header(raw), self.now_ms)
        assert result == (len(self.written), len(self.written) + len(content) - 1, False)
        self.written += content

    @rule(content=records)
    def append_idempotent(self, content: list[tuple[bytes, int]]) -> None:
        made = [RecordData(value, timestamp_ms=time) for value, time in content]
        raw = batches.encode(made, producer_id=PRODUCER_ID, producer_epoch=self.epoch, base_sequence=self.sequence)
        result = self.log.append(raw, batches.parse_header(raw), self.now_ms)
        assert result == (len(self.written), len(self.written) + len(content) - 1, False)
        self.sent = [*self.sent[-4:], (raw, result.base_offset, result.last_offset)]
        self.sequence += len(content)
        self.written += content

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(1, 5))
    def send_again(self, back: int) -> None:
        raw, first, last = self.sent[-min(back, len(self.sent))]
        assert self.log.append(raw, batches.parse_header(raw), self.now_ms) == (first, last, True)

    @rule()
    def sync(self) -> None:
        assert self.log.sync() == len(self.written)
        self.durable = len(self.written)

    @rule(part=st.floats(0, 1))
    def trim(self, part: float) -> None:
        offset = self.start + int((self.log.high_watermark - self.start) * part)
        assert self.log.trim(offset) == offset
        self.start = offset
        self.durable = max(self.durable, self.log.durable_offset)

    @rule(elapsed_ms=st.integers(0, 400_000))
    def retention(self, elapsed_ms: int) -> None:
        self.now_ms += elapsed_ms
        before = self.log.size_bytes
        self.log.apply_retention(self.now_ms)
        assert self.log.size_bytes >= min(before, 3_000)
        assert self.start <= self.log.start_offset <= len(self.written)
        self.start = self.log.start_offset

    @rule()
    def restart(self) -> None:
        self.log.close()
        self.durable = len(self.written)
        self.disk.kill()
        self.open()

    @rule()
    def kill(self) -> None:
        self.disk.kill()
        self.open()
        assert self.log.end_offset == len(self.written)
        self.durable = len(self.written)

    @rule(seed=st.integers(0, 1 << 30))
    def power_cut(self, seed: int) -> None:
        self.durable = max(self.durable, self.log.durable_offset)
        self.disk = self.disk.crash(Random(seed), ordered=True)
        self.open()
        end = self.log.end_offset
        assert self.durable <= end <= len(self.written)
        del self.written[end:]
        kept = [batch for batch in self.sent if batch[2] < end]
        if kept != self.sent:  # the producer gives up what it did not hear of and begins a new epoch
            self.sent, self.sequence = [], 0
            self.epoch += 1
        self.durable = end

    @rule(seed=st.integers(0, 1 << 30), suffix=st.sampled_from([".index", ".timeindex", "checkpoint"]))
    def lose_derived_files(self, seed: int, suffix: str) -> None:
        if suffix == "checkpoint" and self.start:
            return  # the only place of a start inside a segment
        self.log.close()
        self.durable = len(self.written)
        rng = Random(seed)
        for name in self.disk.listdir(FOLDER):
            if name.endswith(suffix) and rng.random() < 0.5:
                self.disk.set_content(f"{FOLDER}/{name}", rng.randbytes(rng.randrange(100)))
        self.disk.kill()
        self.open()

    def expected(self, offset: int, end: int) -> list[tuple[int, bytes, int]]:
        return [(at, *self.written[at]) for at in range(offset, end)]

    @rule(part=st.floats(0, 1), max_bytes=st.sampled_from([1, 100, 700, 1 << 20]))
    def read_from(self, part: float, max_bytes: int) -> None:
        offset = self.start + int((self.log.high_watermark - self.start) * part)
        assert read_all(self.log, offset, max_bytes=max_bytes) == self.expected(offset, self.log.high_watermark)
        assert read_all(self.log, offset, max_bytes=max_bytes, up_to=self.log.end_offset) == self.expected(
            offset, len(self.written)
        )

    @rule(time=st.integers(-1, 5_001))
    def look_up_time(self, time: int) -> None:
        wanted = ((at, self.written[at][1]) for at in range(self.start, self.log.high_watermark) if self.written[at][1] >= time)
        assert self.log.offset_for_time(time) == next(wanted, None)

    @invariant()
    def check_offsets(self) -> None:
        if not hasattr(self, "log"):
            return
        assert self.log.start_offset == self.start
        assert self.log.end_offset == len(self.written)
        assert self.durable <= self.log.durable_offset <= len(self.written)
        assert self.log.high_watermark == (
            self.log.durable_offset if self.settings["flush"] == "always" else self.log.end_offset
        )
        assert self.disk.open_files <= 8


PartitionLogMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestPartitionLog = PartitionLogMachine.TestCase
