"""Groups: the shell round the coordinator.

The coordinator decides; here its records are written as one atomic batch to `__logsvc_groups`, replayed, and when they
are durable the answer goes out and the effects run. An append that is refused (disk full) changes nothing: the records are
replayed only once they are in the log.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from logsvc.broker.appender import Appender
from logsvc.broker.dead_letters import DeadLetterWriter
from logsvc.broker.dispatcher import guarded
from logsvc.broker.exchange import Exchange
from logsvc.broker.parked import Parked
from logsvc.clock import Clock
from logsvc.coordinator.coordinator import Coordinator
from logsvc.coordinator.events import Effect, Event, Now, Outcome, StateRecord, Tick, TopicDeleted, TopicsChanged
from logsvc.metrics import BrokerMetrics, GroupPartitionSample, GroupSample
from logsvc.storage.log_directory import LogDirectory
from logsvc.storage.partition_log import AppendResult, PartitionLog
from logsvc_common.batch import RecordData, decode, encode, parse_header, split
from logsvc_common.errors import LogsvcError, UnknownTopic
from logsvc_common.messages import (
    Commit,
    DescribeGroup,
    DescribeGroupReply,
    FetchOffsets,
    FetchRetries,
    FetchRetriesReply,
    GroupHeartbeat,
    GroupListing,
    GroupPartition,
    ListGroups,
    ListGroupsReply,
    Message,
    RetriesResult,
)
from logsvc_common.names import GROUPS_TOPIC, check_group

RETRIES_WAIT_MS_MAX = 60_000
LOAD_BYTES = 8 << 20  # read at a time while the state is rebuilt
# One record batch holds whatever one request changes: a commit may carry many failures with their texts.
GROUPS_TOPIC_SETTINGS = {"retention.ms": "-1", "max.message.bytes": str(64 << 20)}


class _Logs:
    """The coordinator's read-only view of the partition logs."""

    def __init__(self, logs: LogDirectory) -> None:
        self._logs = logs

    def partition_count(self, topic: str) -> int | None:
        found = self._logs.topics.get(topic)
        return None if found is None else len(found.partitions)

    def start_offset(self, topic: str, partition: int) -> int:
        return self._logs.partition(topic, partition).start_offset

    def end_offset(self, topic: str, partition: int) -> int:
        return self._logs.partition(topic, partition).high_watermark
