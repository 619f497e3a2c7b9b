"""Finding out where to begin in a partition: the group's committed offset, or the start or end of the log."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from logsvc_client.fetcher import COMMITTED, PartitionFetch
from logsvc_client.records import TopicPartition
from logsvc_common.batch import Buffer
from logsvc_common.errors import InvalidRequest, LogsvcError, from_wire
from logsvc_common.messages import (
    EARLIEST,
    LATEST,
    FetchOffsets,
    FetchOffsetsPartition,
    FetchOffsetsReply,
    FetchOffsetsResult,
    ListOffsets,
    ListOffsetsPartition,
    ListOffsetsReply,
    Message,
)

if TYPE_CHECKING:
    from logsvc_client.engine import Engine

Asked = list[tuple[PartitionFetch, int]]  # partitions, and the version of each that was asked for


class Positions:
    """The part of an engine that locates partitions. Everything but the answers needs the engine's lock."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def plan(self, now_ms: int) -> list[Callable[[], None]]:
        """The requests to send now."""
        engine = self._engine
        self._begin_anew()
        sends = []
        if committed := self._ask(now_ms, COMMITTED):
            assert engine.group is not None
            wanted = [FetchOffsetsPartition(*partition.tp) for partition, _version in committed]
            sends.append(engine.sending(FetchOffsets(engine.group, wanted), partial(self._committed_found, committed)))
        if times := self._ask(now_ms, EARLIEST, LATEST):
            asked = [ListOffsetsPartition(*partition.tp, partition.start or 0) for partition, _version in times]
            sends.append(engine.sending(ListOffsets(asked), partial(self._offsets_found, times)))
        return sends

    def _begin_anew(self) -> None:
        """A topic that is gone may be back before the group has taken it away: nothing that is known of the old one holds then,
        neither how far it was read nor what has failed."""
        engine = self._engine
        gone, engine.fetcher.gone = engine.fetcher.gone, []
        for old in gone:
            if engine.fetcher.partitions.get(old.tp) is not old or old.tp not in engine.progress:
                continue
            retry_at_ms = old.retry_at_ms
            engine.fetcher.remove(old.tp)
            engine.kept.drop_partition(old.tp)
            engine.begin(old.tp)
            new = engine.fetcher.partitions[old.tp]
            new.retry_at_ms, new.paused = retry_at_ms, old.paused
            engine.on_changed()

    def _ask(self, now_ms: int, *starts: int) -> Asked:
        found = self._engine.fetcher.unlocated(*starts)
        asked = [(partition, partition.version) for partition in found if partition.retry_at_ms <= now_ms]
        for partition, _version in asked:
            partition.locating = True
        return asked

    def _committed_found(self, asked: Asked, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        engine = self._engine
        with engine.lock:
            if not isinstance(answer, FetchOffsetsReply):
                self._failed(asked, answer)
            else:
                results = {TopicPartition(result.topic, result.partition): result for result in answer.results}
                for partition, version in asked:
                    self._begin(partition, version, results.get(partition.tp))
        engine.on_news()

    def _begin(self, partition: PartitionFetch, version: int, result: FetchOffsetsResult | None) -> None:
        engine = self._engine
        progress = engine.progress.get(partition.tp)
        if partition.version != version or progress is None:
            return
        if result is None:
            self._failed([(partition, version)], InvalidRequest("the answer leaves it out"))
        elif result.error_code:
            self._failed([(partition, version)], from_wire(result.error_code, result.error_message))
        else:
            progress.located(result)
            if result.committed < 0:
                engine.fetcher.no_committed(partition, version)
            else:
                engine.fetcher.located(partition, version, result.committed)
            engine.update_held(partition.tp)

    def _offsets_found(self, asked: Asked, answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
        engine = self._engine
        with engine.lock:
            if not isinstance(answer, ListOffsetsReply) or len(answer.results) != len(asked):
                self._failed(asked, answer)
            else:
                for (partition, version), result in zip(asked, answer.results, strict=True):
                    if result.error_code:
                        self._failed([(partition, version)], from_wire(result.error_code, result.error_message))
                    elif partition.version == version:
                        engine.fetcher.located(partition, version, result.offset)
                        if (progress := engine.progress.get(partition.tp)) is not None:
                            progress.begin(result.offset)
        engine.on_news()

    def _failed(self, asked: Asked, answer: Message | LogsvcError) -> None:
        error = answer if isinstance(answer, LogsvcError) else InvalidRequest(f"answered with {answer!r}")
        for partition, version in asked:
            self._engine.fetcher.not_located(partition, version, error, self._engine.transport.now_ms())
