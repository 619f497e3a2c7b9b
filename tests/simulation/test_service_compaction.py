"""The groups' log is compacted while the broker runs, and says the same afterwards."""

from logsvc_common.messages import FetchOffsets, FetchOffsetsReply
from logsvc_common.names import GROUPS_TOPIC
from tests.simulation.service import SimulatedService
from tests.simulation.test_service_faults import commit, produce, started

COMMITS = 300


def committed(service: SimulatedService) -> list[tuple[str, int, int]]:
    reply, _ = service.ask(FetchOffsets("billing"))
    assert isinstance(reply, FetchOffsetsReply)
    return [(result.topic, result.partition, result.committed) for result in reply.results]


def test_many_commits_of_one_partition_leave_few_records_and_the_last_offset() -> None:
    service = started()
    service.logs.alter_topic(GROUPS_TOPIC, {"segment.bytes": "4096"})
    log = service.logs.partition(GROUPS_TOPIC, 0)
    for offset in range(1, COMMITS + 1):
        produce(service, b"record %d" % offset)
        commit(service, offset)
    before = log.size_bytes

    # The upkeep runs by the broker's own timer.
    service.time.run(lambda: log.size_bytes < before // 4, limit_ms=200_000)

    assert committed(service) == [("orders", 0, COMMITS)]
    for reborn in (service.kill(), service.power_cut()):
        assert committed(reborn) == [("orders", 0, COMMITS)]
        commit(reborn, COMMITS)
