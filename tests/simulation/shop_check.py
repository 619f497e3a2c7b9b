"""What must be true of a shop after everything, once its clients are done: compared with what they sent and were told."""

from collections.abc import Iterable

from logsvc.storage.partition_log import PartitionLog, PartitionState
from logsvc_common.batch import RawRecord, check_crc, decode, split
from logsvc_common.letters import GROUP as GROUP_HEADER
from logsvc_common.letters import OFFSET, PARTITION, TOPIC
from logsvc_common.messages import FetchOffsets, FetchOffsetsReply
from tests.simulation.scripted_shop import (
    GROUP,
    LETTERS,
    POISON,
    READ,
    RETENTION_BYTES,
    TRIM_TO,
    Producer,
    Shop,
)
from tests.simulation.service import SimulatedService

LEFTOVERS = (".tmp", ".cleaned", ".swap", "-delete", ".corrupt", ".deleted")


def check(shop: Shop) -> None:
    """Raises AssertionError for anything lost, doubled, reordered, left behind or offline."""
    service = shop.service
    assert service is not None
    for log in service.logs.all_partitions():
        assert log.state is PartitionState.ONLINE, f"{log}: {log.state_reason}"
        assert log.high_watermark == log.end_offset, f"{log} ends at {log.high_watermark} for consumers"
    orders, table, history, _ = shop.producers
    whole(service, orders)
    start_offset = suffix(service, history)
    kept = service.logs.partition("history", 0)
    assert start_offset >= TRIM_TO, f"trimmed to {TRIM_TO}, it starts at {start_offset} again"
    assert start_offset == TRIM_TO or kept.size_bytes >= RETENTION_BYTES, f"retention has left {kept.size_bytes} bytes"
    compacted(service, table)
    one_letter(service)
    positions(service)
    gone(service)
    no_leftovers(shop)


def records_of(log: PartitionLog) -> dict[int, RawRecord]:
    """Every record of a log by its offset, read as a consumer reads: checksums, offsets that ascend without a gap."""
    found: dict[int, RawRecord] = {}
    offset = log.start_offset
    while data := log.read(offset, 700):
        for header, batch in split(data):
            check_crc(batch, header)
            assert header.base_offset <= offset < header.next_offset, f"{log}: {header} where offset {offset} should be"
            found |= {record.offset: record for record in decode(batch) if record.offset >= log.start_offset}
            offset = header.next_offset
    assert offset == log.end_offset
    return found


def same(found: dict[int, RawRecord], producer: Producer, offsets: Iterable[int]) -> None:
    """The records at these offsets are what was sent, in the order it was sent, each once."""
    sent = producer.records()
    for offset in offsets:
        record, wanted = found[offset], sent[offset]
        assert (record.key, record.value) == (wanted.key, wanted.value), f"{producer.topic}: {record.value!r} at {offset}"


def placed(service: SimulatedService, producer: Producer) -> PartitionLog:
    """The log of a producer; each batch was acknowledged at the offset where it belongs."""
    log, offset = service.logs.partition(producer.topic, producer.partition), 0
    for batch, base_offset in zip(producer.batches, producer.acked, strict=True):
        assert base_offset == offset, f"{log}: acknowledged at {base_offset}, it belongs to {offset}"
        offset += len(batch)
    assert log.end_offset == offset, f"{log} ends at {log.end_offset}, {offset} records were sent"
    return log


def whole(service: SimulatedService, producer: Producer) -> None:
    log = placed(service, producer)
    assert log.start_offset == 0
    same(records_of(log), producer, range(log.end_offset))


def suffix(service: SimulatedService, producer: Producer) -> int:
    """Something was removed from the start, nothing else; where the log starts."""
    log = placed(service, producer)
    found = records_of(log)
    assert sorted(found) == list(range(log.start_offset, log.end_offset))
    same(found, producer, found)
    return log.start_offset


def compacted(service: SimulatedService, producer: Producer) -> None:
    """The last record of each key is there; what else there is stands where it was sent."""
    found = records_of(placed(service, producer))
    same(found, producer, found)
    last = {record.key: offset for offset, record in enumerate(producer.records())}
    missing = set(last.values()) - found.keys()
    assert not missing, f"compaction has lost the last records of keys at {missing}"


def one_letter(service: SimulatedService) -> None:
    found = [letter for log in service.logs.topics[LETTERS].partitions for letter in records_of(log).values()]
    assert len(found) == 1, f"{len(found)} letters of one failure"
    headers = dict(found[0].headers)
    assert [headers[name] for name in (TOPIC, PARTITION, OFFSET, GROUP_HEADER)] == [
        b"orders",
        b"0",
        b"%d" % POISON,
        GROUP.encode(),
    ]
    original = records_of(service.logs.partition("orders", 0))[POISON]
    assert (found[0].key, found[0].value) == (original.key, original.value)


def positions(service: SimulatedService) -> None:
    reply, _ = service.ask(FetchOffsets(GROUP))
    assert isinstance(reply, FetchOffsetsReply)
    assert [(found.committed, found.outstanding) for found in reply.results] == [(READ, [])]


def gone(service: SimulatedService) -> None:
    """The topic that was deleted and made again is a new one, and no group has read of it."""
    assert service.logs.partition("passing", 0).end_offset == 0, "records of a deleted topic are back"
    reply, _ = service.ask(FetchOffsets("reader"))
    assert isinstance(reply, FetchOffsetsReply)
    assert not reply.results, f"a group goes on at {reply.results[0].committed} of a topic that was deleted and made again"


def no_leftovers(shop: Shop) -> None:
    """Nothing half done lies about, and closing closes every file."""
    service = shop.service
    assert service is not None
    folders = {f"{log.topic}-{log.partition}" for log in service.logs.all_partitions()}
    names = {name for name in shop.disk.listdir("/data") if name not in (".lock", "topics")}
    assert names == folders, f"left behind: {names - folders}, missing: {folders - names}"
    for folder in ["topics", *folders]:
        left = [name for name in shop.disk.listdir(f"/data/{folder}") if name.endswith(LEFTOVERS)]
        assert not left, f"left in {folder}: {left}"
