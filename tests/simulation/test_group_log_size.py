"""`__logsvc_groups` stays small however often a group commits: what it holds grows with the state, not with its history.

Commits go through the real dispatcher, coordinator, group commit and log; the broker's own timer compacts them. Each commit of
a partition is one record of the groups' log. A request carries as many as a consumer of all partitions sends.
"""

import time

import pytest

from logsvc_common.batch import RecordData, encode, parse_header
from logsvc_common.messages import Commit, CommitPartition, CommitReply, CreateTopic, FetchOffsets, FetchOffsetsReply
from logsvc_common.names import GROUPS_TOPIC
from tests.simulation.service import SimulatedService

COMMITS = 1_000_000
PARTITIONS = 100
GROUPS = 5
SEGMENT_BYTES = 1 << 20  # 16 MiB in life: less data crosses as many segments
LOG_BYTES_MAX = 3 * SEGMENT_BYTES  # the active segment, as much again that is dirty, and the state
UPKEEP_EVERY = 500  # requests: one pass of retention and compaction, as after a minute in life


@pytest.mark.timeout(300)
def test_the_groups_log_stays_small_over_a_million_commits() -> None:
    service = SimulatedService(1)
    service.ask(CreateTopic("orders", PARTITIONS))
    service.ask(Commit("group-0", "", -1, [CommitPartition("orders", 0, 0)]))
    service.logs.alter_topic(GROUPS_TOPIC, {"segment.bytes": str(SEGMENT_BYTES)})
    log = service.logs.partition(GROUPS_TOPIC, 0)
    records = encode([RecordData(b"")] * (COMMITS // PARTITIONS))  # nobody commits beyond the end
    for partition in service.logs.topics["orders"].partitions:
        partition.append(records, parse_header(records), 0)
        partition.sync()
    started, written, highest_bytes = time.perf_counter(), 0, 0
    for number in range(COMMITS // PARTITIONS):
        group = f"group-{number % GROUPS}"
        request = Commit(group, "", -1, [CommitPartition("orders", partition, number) for partition in range(PARTITIONS)])
        reply, _ = service.ask(request)
        assert isinstance(reply, CommitReply)
        assert not reply.results[0].error_code, reply.results[0].error_message
        written += PARTITIONS
        highest_bytes = max(highest_bytes, log.size_bytes)
        if number % UPKEEP_EVERY == UPKEEP_EVERY - 1:
            began_ms = service.time.now_ms
            service.time.call_later(61, lambda: None)
            service.time.run(lambda began_ms=began_ms: service.time.now_ms >= began_ms + 61_000)
    seconds = time.perf_counter() - started
    print(
        f"{written:,} commits in {seconds:.1f} s, {written / seconds:,.0f} a second: the log had "
        f"{highest_bytes / 2**20:.1f} MiB at most and has {log.size_bytes / 2**20:.1f} MiB in {log.segment_count} segments, "
        f"records ever: {log.end_offset:,}"
    )
    assert log.end_offset >= COMMITS
    assert log.size_bytes <= LOG_BYTES_MAX
    reborn = service.kill()
    for group in range(GROUPS):
        found, _ = reborn.ask(FetchOffsets(f"group-{group}"))
        assert isinstance(found, FetchOffsetsReply)
        last = (COMMITS // PARTITIONS - 1 - group) // GROUPS * GROUPS + group
        assert [result.committed for result in found.results] == [last] * PARTITIONS
