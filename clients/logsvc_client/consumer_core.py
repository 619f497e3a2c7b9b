"""What Consumer and AsyncConsumer are made of: settings, assignment, positions and verdicts that never wait."""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from logsvc_client.engine import Engine
from logsvc_client.fetcher import RESETS, Fetcher, names
from logsvc_client.handout import Handout
from logsvc_client.membership import Membership
from logsvc_client.records import Record, TopicPartition
from logsvc_client.transport import DEFAULT_REQUEST_TIMEOUT_MS, DEFAULT_SERVER, Transport
from logsvc_common.errors import InvalidConfig, InvalidRequest, LogsvcError, from_wire
from logsvc_common.messages import (
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
)
from logsvc_common.names import check_group, check_topic
from logsvc_common.retry import RetryPolicy

log = logging.getLogger(__name__)


class ConsumerCore(ABC):
    """Settings of a consumer, all keyword-only.

    `group_id`: the group to share the topics with; None reads them alone. `auto_offset_reset`: where to begin without a
    committed offset, and when the offset is gone: `earliest`, `latest`, or `error` (NoOffset, OffsetOutOfRange).
    `auto_commit`: progress is committed every `auto_commit_interval_ms`; without, only by `commit`. `max_poll_records`: of
    one `poll`. `fetch_max_wait_ms`, `fetch_min_bytes`, `fetch_max_bytes`, `max_partition_fetch_bytes`: of one request, as
    in Kafka. `buffer_bytes`: memory for what is read ahead. `session_timeout_ms`, `assignor` (`range`, `uniform`,
    `sticky`), `instance_id` (a static member): of the group. `retry`: what becomes of failures. `connect_timeout_ms`: how
    long the first connection may take before calls raise RequestTimeout; later the broker is waited for.
    """

    def __init__(
        self,
        *topics: str,
        group_id: str | None = None,
        server: str = DEFAULT_SERVER,
        client_id: str = "",
        auto_offset_reset: str = "earliest",
        auto_commit: bool = True,
        auto_commit_interval_ms: int = 1_000,
        max_poll_records: int = 1_000,
        fetch_max_wait_ms: int = 500,
        fetch_min_bytes: int = 1,
        fetch_max_bytes: int = 16 << 20,
        max_partition_fetch_bytes: int = 1 << 20,
        buffer_bytes: int = 64 << 20,
        session_timeout_ms: int | None = None,
        assignor: str | None = None,
        instance_id: str | None = None,
        retry: RetryPolicy | None = None,
        request_timeout_ms: int = DEFAULT_REQUEST_TIMEOUT_MS,
        connect_timeout_ms: int = DEFAULT_REQUEST_TIMEOUT_MS,
    ) -> None:
        if auto_offset_reset not in (*RESETS, "error"):
            raise InvalidConfig(f"auto_offset_reset is {auto_offset_reset!r}; it takes earliest, latest or error")
        if max_poll_records < 1 or fetch_max_bytes < 1 or max_partition_fetch_bytes < 1 or buffer_bytes < 1:
            raise InvalidConfig("max_poll_records and the sizes are at least 1")
        for topic in topics:
            check_topic(topic)
        self._group_id = None if group_id is None else check_group(group_id)
        self._topics = topics
        self._auto_commit = auto_commit
        self._max_poll_records = max_poll_records
        self._closed = False
        self._transport = Transport(server, client_id=client_id, request_timeout_ms=request_timeout_ms)
        membership = None
        if group_id is not None and topics:
            membership = Membership(
                group_id,
                secrets.token_hex(16),
                list(topics),
                instance_id=instance_id,
                client_id=client_id,
                assignor=assignor,
                session_timeout_ms=session_timeout_ms,
                retry=retry,
            )
        fetcher = Fetcher(
            reset=auto_offset_reset,
            max_wait_ms=fetch_max_wait_ms,
            min_bytes=fetch_min_bytes,
            fetch_bytes_max=fetch_max_bytes,
            partition_bytes_max=max_partition_fetch_bytes,
            buffer_bytes=buffer_bytes,
            missing_is_error=membership is None,
        )
        self._engine = Engine(
            self._transport,
            fetcher,
            topics=topics,
            membership=membership,
            group=group_id,
            retry=retry or RetryPolicy(),
            auto_commit_interval_ms=auto_commit_interval_ms if auto_commit else None,
            connect_timeout_ms=connect_timeout_ms,
        )
        self._handout = Handout(self._engine, settle_on_take=auto_commit)
        self._prepare()
        self._transport.start(self._engine)

    @abstractmethod
    def _prepare(self) -> None:
        """What a twin needs before the engine starts."""

    # Assignment and positions

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Read exactly these partitions, from the committed offset (with a group) or by `auto_offset_reset`.

        Raises InvalidRequest for a consumer that subscribes to topics: there the group, or the topic, assigns.
        """
        if self._topics:
            raise InvalidRequest("this consumer subscribes to topics; make one without topics to assign partitions")
        wanted = [TopicPartition(check_topic(topic), partition) for topic, partition in partitions]
        engine = self._engine
        with engine.lock:
            for tp in list(engine.fetcher.partitions):
                if tp not in wanted:
                    engine.fetcher.remove(tp)
                    engine.progress.pop(tp, None)
                    engine.kept.drop_partition(tp)
            for tp in wanted:
                if tp not in engine.fetcher.partitions:
                    engine.begin(tp)
        self._transport.wake()

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions this consumer reads now."""
        with self._engine.lock:
            return frozenset(self._engine.fetcher.partitions)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on at `offset`. A committed offset never goes back by it. Raises InvalidRequest if `tp` is not assigned."""
        engine = self._engine
        with engine.lock:
            partition = engine.fetcher.partitions.get(TopicPartition(*tp))
            if partition is None:
                raise InvalidRequest(f"{names([tp])} is not assigned to this consumer")
            partition.move(offset)
            if partition.tp in engine.progress:
                engine.progress[partition.tp].begin(offset)
            self._handout.turn += 1
            self._handout.unsettle()
        self._transport.wake()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Hand out no new records of these partitions until `resume`. Those that are due again still come."""
        self._set_paused(partitions, True)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """The end of `pause`."""
        self._set_paused(partitions, False)

    def _set_paused(self, partitions: Sequence[TopicPartition], paused: bool) -> None:
        with self._engine.lock:
            for tp in partitions:
                partition = self._engine.fetcher.partitions.get(TopicPartition(*tp))
                if partition is not None:
                    partition.set_paused(paused)
        self._transport.wake()

    def _position(self, tp: TopicPartition) -> int | None:
        with self._engine.lock:
            partition = self._engine.fetcher.partitions.get(TopicPartition(*tp))
            if partition is None:
                raise InvalidRequest(f"{names([tp])} is not assigned to this consumer")
            if partition.error is not None:
                raise partition.error
            return partition.position if partition.start is None else None

    # Verdicts

    def fail(self, record: Record, error: BaseException | str) -> None:
        """This record has failed: it comes back by the retry policy. The broker is told at once.

        Does nothing for a partition that has gone to another member. Raises InvalidRequest without a group.
        """
        self._handout.fail(record, error)

    def ack(self, record: Record) -> None:
        """A redelivered record (`attempt` > 1, or parked before) is done, sooner than the next `poll` would say."""
        self._handout.finish(record)

    # For the twins

    def _commit(self) -> "Future[None]":
        with self._engine.lock:
            return self._engine.commit()

    def _leave(self) -> "Future[None]":
        with self._engine.lock:
            self._engine.closing = True
        return self._engine.leave()

    def _log_close(self, error: Exception) -> None:
        log.warning("closing the consumer: %s: %s", type(error).__name__, error)

    def _committed_request(self, partitions: Sequence[TopicPartition] | None) -> FetchOffsets:
        if self._group_id is None:
            raise InvalidRequest("a consumer without a group has no committed offsets")
        wanted = self.assignment() if partitions is None else partitions
        return FetchOffsets(self._group_id, [FetchOffsetsPartition(*tp) for tp in wanted])

    @staticmethod
    def _committed_of(reply: FetchOffsetsReply) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = {}
        for result in reply.results:
            _raise_for(result.error_code, result.error_message)
            if result.committed >= 0:
                found[TopicPartition(result.topic, result.partition)] = result.committed
        return found

    @staticmethod
    def _times_request(times: Mapping[TopicPartition, int]) -> ListOffsets:
        return ListOffsets([ListOffsetsPartition(topic, partition, time_ms) for (topic, partition), time_ms in times.items()])

    @staticmethod
    def _offsets_of(reply: ListOffsetsReply) -> dict[TopicPartition, int]:
        for result in reply.results:
            _raise_for(result.error_code, result.error_message)
        return {TopicPartition(result.topic, result.partition): result.offset for result in reply.results}


def _raise_for(code: int, message: str) -> None:
    if code:
        error: LogsvcError = from_wire(code, message)
        raise error
