"""The fetcher under any sequence of events: it never stalls, never asks twice, never skips and never exceeds its memory."""

from hypothesis import given, settings
from hypothesis import strategies as st

from logsvc_client.fetcher import Fetcher, PartitionFetch, SentFetch
from logsvc_client.records import TopicPartition
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import BrokerOverloaded, Disconnected, OffsetOutOfRange
from logsvc_common.messages import EARLIEST, LATEST, FetchReply, FetchResult

PARTITIONS = 3
BATCH_RECORDS = 4
LOG_BATCHES = 6
START, END = BATCH_RECORDS, BATCH_RECORDS * LOG_BATCHES  # the first batch of each log has been trimmed away
BATCHES = {
    base: encode([RecordData(b"%d" % (base + index)) for index in range(BATCH_RECORDS)], base_offset=base)
    for base in range(0, END, BATCH_RECORDS)
}
BUFFER_BYTES = 1_000
PARTITION_BYTES = 300


class World:
    """A fetcher, requests under way, and what a user does meanwhile."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.fetcher = Fetcher(
            reset="earliest",
            max_wait_ms=500,
            min_bytes=1,
            fetch_bytes_max=600,
            partition_bytes_max=PARTITION_BYTES,
            buffer_bytes=BUFFER_BYTES,
            missing_is_error=True,
        )
        self.partitions = [self.fetcher.add(TopicPartition("t", number), START) for number in range(PARTITIONS)]
        self.expected = [START] * PARTITIONS
        self.under_way: list[SentFetch] = []

    def step(self) -> None:
        for partition in self.fetcher.unlocated(EARLIEST, LATEST):
            partition.locating = True
            self.fetcher.located(partition, partition.version, START)
            self.expected[partition.tp.partition] = START
        self.under_way += self.fetcher.plan(self.now_ms)
        asked = [
            (partition.tp, version)
            for sent in self.under_way
            for partition, version in sent.partitions
            if partition.version == version
        ]
        assert len(set(asked)) == len(asked), "a partition is in two requests"

    def answer(self, place: int, how: str) -> None:
        if not self.under_way:
            return
        sent = self.under_way.pop(place % len(self.under_way))
        if how != "well":
            self.fetcher.lost(sent, Disconnected("gone") if how == "lost" else BrokerOverloaded("busy"), self.now_ms)
            return
        results, payload = [], []
        for asked in sent.body.partitions:
            if not START <= asked.offset <= END:
                code = OffsetOutOfRange.code
                results.append(FetchResult(topic="t", partition=asked.partition, error_code=code, error_message="gone"))
                payload.append(b"")
            elif asked.offset < END:
                base = asked.offset - asked.offset % BATCH_RECORDS
                results.append(FetchResult(topic="t", partition=asked.partition, high_watermark=END))
                payload.append(BATCHES[base])
        self.fetcher.received(sent, FetchReply(results), payload, self.now_ms)

    def take(self) -> None:
        partition = self.fetcher.next_readable()
        if partition is None:
            return
        number = partition.tp.partition
        chunk = partition.pop_chunk()
        assert chunk.header.base_offset <= self.expected[number] < chunk.header.next_offset, "records were skipped or repeated"
        partition.position = self.expected[number] = chunk.header.next_offset

    def seek(self, number: int, offset: int) -> None:
        self.partitions[number].move(offset)
        self.expected[number] = offset

    def check(self) -> None:
        buffered = sum(partition.buffered_bytes for partition in self.partitions)
        assert buffered <= BUFFER_BYTES + PARTITIONS * len(BATCHES[START])
        for partition in self.partitions:
            assert partition.buffered_bytes == sum(chunk.header.size for chunk in partition.chunks)

    def read_on(self, partition: PartitionFetch) -> None:
        """With a broker that answers, every partition is read to its end."""
        partition.set_paused(False)
        partition.set_held(False)


ACTIONS = st.one_of(
    st.tuples(st.just("step")),
    st.tuples(st.just("answer"), st.integers(0, 5), st.sampled_from(["well", "well", "well", "lost", "busy"])),
    st.tuples(st.just("take")),
    st.tuples(st.just("wait"), st.sampled_from([10, 200])),
    st.tuples(st.just("seek"), st.integers(0, PARTITIONS - 1), st.sampled_from([0, START, START + 2, END, END + 5])),
    st.tuples(st.just("pause"), st.integers(0, PARTITIONS - 1), st.booleans()),
    st.tuples(st.just("hold"), st.integers(0, PARTITIONS - 1), st.booleans()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_whatever_happens_every_partition_is_read_in_order_to_its_end(actions: list[tuple[object, ...]]) -> None:
    world = World()
    for action in actions:
        match action:
            case ("step",):
                world.step()
            case ("answer", int(place), str(how)):
                world.answer(place, how)
            case ("take",):
                world.take()
            case ("wait", int(ms)):
                world.now_ms += ms
            case ("seek", int(number), int(offset)):
                world.seek(number, offset)
            case ("pause", int(number), bool(paused)):
                world.partitions[number].set_paused(paused)
            case ("hold", int(number), bool(held)):
                world.partitions[number].set_held(held)
        world.check()

    for partition in world.partitions:
        world.read_on(partition)
    for _ in range(200):
        world.now_ms += 200
        world.step()
        for _ in range(len(world.under_way)):
            world.answer(0, "well")
        world.take()
        world.check()
    assert world.expected == [END] * PARTITIONS, "a partition has stalled"
