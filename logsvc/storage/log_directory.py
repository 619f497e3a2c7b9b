"""The data folder of one broker: its lock, its topics, their partitions.

    DATA/.lock                 held by the running broker, holds its process id
    DATA/topics/ID.json        see `topic_store`
    DATA/quotas.json           see `quota_store`
    DATA/TOPIC-PARTITION/      see `partition_log`
    DATA/ID-PARTITION-delete/  a partition of a deleted topic, on its way out

Opening it is recovery. A partition whose disk fails, or whose folder is gone, is FAILED and the others serve. A partition
folder that holds data but belongs to no topic is adopted with default settings rather than ignored: a lost topic file
must not lose records.
"""

import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from logsvc.config import TopicConfig
from logsvc.storage import checkpoint as checkpoints
from logsvc.storage.compaction import Compaction
from logsvc.storage.disk import Disk, File, make_folder
from logsvc.storage.partition_log import PartitionLog
from logsvc.storage.quota_store import QuotaStore
from logsvc.storage.removal import Removals
from logsvc.storage.reserve import DiskReserve
from logsvc.storage.segment import LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, SegmentCache
from logsvc.storage.topic_store import TopicFile, TopicStore, overrides_after
from logsvc_common.errors import (
    DataFolderUnusable,
    DiskFull,
    InvalidPartitions,
    LogsvcError,
    StorageFailed,
    TopicExists,
    UnknownPartition,
    UnknownTopic,
)
from logsvc_common.names import check_topic, is_internal

LOCK_FILE = ".lock"
DELETE_SUFFIX = "-delete"
PARTITIONS_PER_TOPIC_MAX = 10_000
BEGUN_MAX = 1_000  # topics that could not be made whose ids are remembered
THREADS = 8  # for opening and closing partitions
THREADED_FROM = 16  # partitions from which on threads are worth it
T = TypeVar("T")
R = TypeVar("R")
_PARTITION_FOLDER = re.compile(r"([a-zA-Z0-9._-]{1,249})-(\d{1,5})\Z")
_PUT_AWAY_FOLDER = re.compile(r"[a-zA-Z0-9._-]{1,249}-\d{1,5}-delete\Z")
_LOG = logging.getLogger(__name__)


@dataclass
class Topic:
    """A topic and its partitions, in order. `config` is the defaults with `overrides` applied."""

    name: str
    topic_id: str
    config: TopicConfig
    overrides: Mapping[str, str]
    internal: bool = False
    partitions: list[PartitionLog] = field(default_factory=list)

    def to_file(self, partitions: int | None = None) -> TopicFile:
        count = len(self.partitions) if partitions is None else partitions
        return TopicFile(self.name, self.topic_id, count, dict(self.overrides), self.internal)


class DiskSpace(NamedTuple):
    """Below `reserve_bytes` of free space writes are refused."""

    free_bytes: int
    size_bytes: int
    reserve_bytes: int


def _random_id() -> str:
    return uuid.uuid4().hex


class LogDirectory:
    """An open data folder. Event-loop thread only, but for `PartitionLog.sync`."""

    def __init__(self, disk: Disk, path: str, lock: File, reserve_bytes: int, now_ms: int, new_id: Callable[[], str]) -> None:
        self.path = path
        self._new_id = new_id
        self.topics: dict[str, Topic] = {}
        self._disk = disk
        self._lock = lock
        self._store = TopicStore(disk, path)
        self.quotas = QuotaStore(disk, path)
        self._cache = SegmentCache(disk)
        self._reserve = DiskReserve(disk, path, reserve_bytes)
        self._opened_ms = now_ms
        self._closed = False
        self.removals = Removals()
        self._begun: dict[str, str] = {}  # ids by name of topics whose files the disk has refused and may hold all the same
        self._deleting: dict[str, Topic] = {}  # deleted topics of which the disk has kept a part

    @classmethod
    def open(
        cls, disk: Disk, path: str, *, now_ms: int, reserve_bytes: int = 0, new_id: Callable[[], str] = _random_id
    ) -> "LogDirectory":
        """Make the folder if needed, take its lock, recover everything in it.

        `now_ms`: producers not heard of for a day are forgotten. `reserve_bytes`: free space below which writes to other
        than internal topics are refused. `new_id` names new topics, never the same way twice. Raises DataFolderLocked
        when another broker has it, DataFolderUnusable when it cannot be used.
        """
        path = path.rstrip("/") or "/"
        try:
            make_folder(disk, path)
            lock = disk.lock(f"{path}/{LOCK_FILE}")
        except OSError as error:
            raise DataFolderUnusable(f"cannot use {path} as data folder: {error.strerror or error}") from error
        directory = cls(disk, path, lock, reserve_bytes, now_ms, new_id)
        try:
            directory._recover()
        except OSError as error:
            directory.abandon()
            raise DataFolderUnusable(f"cannot open the data folder {path}: {error}") from error
        except BaseException:
            directory.abandon()
            raise
        return directory

    # -- opening ------------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        self._store.prepare()
        self.quotas.load()
        names = set(self._disk.listdir(self.path))
        for deleted in self._store.deletions():
            self._finish_delete(deleted.topic_id, deleted.name, deleted.partitions)
        names = set(self._disk.listdir(self.path))
        self.removals.begin(self._removal([f"{self.path}/{name}" for name in names if _PUT_AWAY_FOLDER.match(name)]))
        wanted: list[tuple[Topic, int]] = []
        for found in self._store.load():
            topic = Topic(found.name, found.topic_id, _config(found.overrides), found.overrides, found.internal)
            self.topics[found.name] = topic
            wanted.extend((topic, partition) for partition in range(found.partitions))
        for log in _in_threads(lambda which: self._open_partition(*which, names), wanted):
            self.topics[log.topic].partitions.append(log)
        self._adopt_strays(names)

    def _open_partition(self, topic: Topic, partition: int, names: set[str]) -> PartitionLog:
        folder = f"{topic.name}-{partition}"
        if folder not in names:
            _LOG.error("the folder %s/%s is gone", self.path, folder)
        return PartitionLog.open(
            self._disk,
            f"{self.path}/{folder}",
            topic.name,
            partition,
            topic.config,
            cache=self._cache,
            reserve=None if topic.internal else self._reserve,
            removals=self.removals,
            now_ms=self._opened_ms,
        )

    def _adopt_strays(self, names: set[str]) -> None:
        """Folders that belong to no topic: empty ones are left of a creation that did not finish, others are adopted."""
        strays: dict[str, list[int]] = {}
        for name in sorted(names):
            match = _PARTITION_FOLDER.match(name)
            if match is None or str(int(match[2])) != match[2]:
                continue
            topic = self.topics.get(match[1])
            if topic is not None and int(match[2]) < len(topic.partitions):
                continue
            content = self._content_of(name)
            if content == "data":
                strays.setdefault(match[1], []).append(int(match[2]))
            elif content == "nothing":
                _LOG.info("removing %s/%s, left by a creation that did not finish", self.path, name)
                self.removals.begin(self._removal([f"{self.path}/{name}"]))
        for topic_name, partitions in strays.items():
            _LOG.error("%s: partitions %s of %s belong to no topic file: adopted", self.path, partitions, topic_name)
            topic = self.topics.get(topic_name) or Topic(topic_name, self._new_id(), TopicConfig(), {}, is_internal(topic_name))
            self._grow(topic, max(partitions) + 1)
            self.topics[topic_name] = topic

    def _content_of(self, name: str) -> str:
        """`data`: a partition folder with records. `nothing`: one without. `other`: not one of ours, to be left alone."""
        folder = f"{self.path}/{name}"
        try:
            files = self._disk.listdir(folder)
        except NotADirectoryError:
            return "other"
        if any(self._disk.file_size(f"{folder}/{file}") for file in files if file.endswith(LOG_SUFFIX)):
            return "data"
        ours = (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, checkpoints.FILE_NAME, ".tmp")
        return "nothing" if all(file.endswith(ours) for file in files) else "other"

    # -- topics -------------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopic, which says how to make it."""
        try:
            return self.topics[name]
        except KeyError:
            raise UnknownTopic(f"no topic {name!r}; create it with `logsvc topic create {name}`") from None

    def partition(self, topic: str, partition: int) -> PartitionLog:
        """Raises UnknownTopic, UnknownPartition."""
        partitions = self.topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise UnknownPartition(f"topic {topic!r} has partitions 0 to {len(partitions) - 1}, not {partition}")
        return partitions[partition]

    def create_topic(
        self, name: str, partitions: int, overrides: Mapping[str, str] | None = None, *, internal: bool = False
    ) -> Topic:
        """Make a topic, durably.

        Raises InvalidTopicName, TopicExists, InvalidPartitions, InvalidConfig, DiskFull, StorageFailed.
        """
        check_topic(name)
        if name in self.topics:
            raise TopicExists(f"topic {name!r} exists already")
        chosen = dict(overrides or {})
        topic = Topic(name, self._begun.get(name) or self._new_id(), _config(chosen), chosen, internal)
        self._check_count(partitions)
        if not internal:
            self._reserve.take(0)
        if name in self._deleting:
            self._finish_deleting(name)
        try:
            self._grow(topic, partitions)
        except (StorageFailed, DiskFull):
            # Tried again under another id, the next start would find two topics of one name.
            if len(self._begun) < BEGUN_MAX:
                self._begun[name] = topic.topic_id
            raise
        self._begun.pop(name, None)
        self.topics[name] = topic
        return topic

    def add_partitions(self, name: str, count: int) -> Topic:
        """Grow a topic to `count` partitions. Raises UnknownTopic, InvalidPartitions, DiskFull, StorageFailed."""
        topic = self.topic(name)
        self._check_count(count)
        if count < len(topic.partitions):
            raise InvalidPartitions(f"topic {name!r} has {len(topic.partitions)} partitions; it cannot have fewer")
        if count > len(topic.partitions):
            self._grow(topic, count)
        return topic

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= PARTITIONS_PER_TOPIC_MAX:
            raise InvalidPartitions(f"{count} partitions; a topic has 1 to {PARTITIONS_PER_TOPIC_MAX}")

    def _grow(self, topic: Topic, count: int) -> None:
        """Make the folders that are missing, then the topic file, which commits them, then open the logs."""
        try:
            for partition in range(len(topic.partitions), count):
                self._disk.make_dirs(f"{self.path}/{topic.name}-{partition}")
            self._disk.sync_dir(self.path)
            self._store.save(topic.to_file(count))
        except OSError as error:
            raise StorageFailed(f"topic {topic.name!r} cannot be written: {error}") from error
        names = {f"{topic.name}-{partition}" for partition in range(count)}
        wanted = [(topic, partition) for partition in range(len(topic.partitions), count)]
        topic.partitions += _in_threads(lambda which: self._open_partition(*which, names), wanted)

    def alter_topic(self, name: str, overrides: Mapping[str, str | None]) -> Topic:
        """Change settings; None takes one back to its default. Raises UnknownTopic, InvalidConfig, DiskFull, StorageFailed."""
        topic = self.topic(name)
        merged = overrides_after(topic.overrides, overrides)
        config = _config(merged)
        try:
            self._store.save(TopicFile(name, topic.topic_id, len(topic.partitions), merged, topic.internal))
        except OSError as error:
            raise StorageFailed(f"topic {name!r} cannot be written: {error}") from error
        topic.overrides, topic.config = merged, config
        for partition in topic.partitions:
            partition.config = config
        return topic

    def delete_topic(self, name: str) -> None:
        """Delete a topic and its records. Once it returns, or crashes half way, they stay deleted; `removals` frees the room.

        Raises UnknownTopic, StorageFailed: nothing has changed when the topic is still there, else the next start finishes it.
        """
        topic = self.topic(name)
        try:
            self._store.begin_delete(topic.topic_id)
        except OSError as error:
            raise StorageFailed(f"topic {name!r} is not deleted: {error}") from error
        del self.topics[name]
        for partition in topic.partitions:
            partition.abandon()
        self._deleting[name] = topic
        self._finish_deleting(name)

    def _finish_deleting(self, name: str) -> None:
        """Go on where a deletion was stopped. Until it is over no topic of that name may be made: it would find the old
        records, and lose its own when the next start finishes the deletion."""
        topic = self._deleting[name]
        try:
            self._store.sync()
            self._finish_delete(topic.topic_id, name, len(topic.partitions))
        except OSError as error:
            raise StorageFailed(f"topic {name!r} is not deleted wholly; the next start will: {error}") from error
        del self._deleting[name]

    def _finish_delete(self, topic_id: str, name: str, partitions: int) -> None:
        """Move every folder out of the way of a new topic of that name, durably; that it is to go, its name now says."""
        put_away = []
        for partition in range(partitions):
            folder = f"{self.path}/{topic_id}-{partition}{DELETE_SUFFIX}"
            if self._disk.exists(f"{self.path}/{name}-{partition}"):
                self._disk.rename(f"{self.path}/{name}-{partition}", folder)
            put_away.append(folder)
        self._disk.sync_dir(self.path)
        self._store.end_delete(topic_id)
        self.removals.begin(self._removal(put_away))

    def _removal(self, folders: Sequence[str]) -> Iterator[None]:
        """Remove folders and what is in them, a file at a step."""
        for folder in folders:
            if not self._disk.exists(folder):
                continue
            for name in self._disk.listdir(folder):
                self._disk.unlink(f"{folder}/{name}")
                yield
            self._disk.rmdir(folder)
            yield

    # -- all of it ----------------------------------------------------------------------------------------------------

    def all_partitions(self) -> list[PartitionLog]:
        return [partition for topic in self.topics.values() for partition in topic.partitions]

    def disk_space(self) -> DiskSpace:
        """Of the file system that the data folder is on. Raises OSError."""
        return DiskSpace(self._disk.free_bytes(self.path), self._disk.total_bytes(self.path), self._reserve.reserve_bytes)

    def apply_retention(self, now_ms: int) -> int:
        """Run retention on every partition; the number of segments deleted. One that fails is logged and the others go on."""
        deleted = 0
        for partition in self.all_partitions():
            try:
                deleted += partition.apply_retention(now_ms)
            except (StorageFailed, DiskFull) as error:
                _LOG.error("retention of %s-%d: %s", partition.topic, partition.partition, error.message)
        return deleted

    def compactions(self, now_ms: int) -> list[tuple[PartitionLog, Compaction]]:
        """The partitions that want compaction and what is to be done: `run` each in a worker thread, then hand it to
        `finish_compaction` of its partition."""
        planned = ((partition, partition.compaction(now_ms)) for partition in self.all_partitions())
        return [(partition, work) for partition, work in planned if work is not None]

    def close(self) -> None:
        """Close every partition, then release the lock. The first error is raised when all are closed."""
        if self._closed:
            return
        errors = [error for error in _in_threads(_finish, self.all_partitions()) if error is not None]
        self.abandon()
        if errors:
            raise errors[0]

    def abandon(self) -> None:
        """Let go of everything without writing, as a crash would."""
        for partition in self.all_partitions():
            partition.abandon()
        self._closed = True
        self._lock.close()


def _finish(partition: PartitionLog) -> LogsvcError | None:
    try:
        partition.finish()
    except LogsvcError as error:
        _LOG.error("closing %s-%d: %s", partition.topic, partition.partition, error.message)
        return error
    return None


def _in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results of `work` on every item, in order. Many items share threads: each waits for the disk most of the time."""
    if len(items) < THREADED_FROM:
        return [work(item) for item in items]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="storage") as pool:
        return list(pool.map(work, items))


def _config(overrides: Mapping[str, str]) -> TopicConfig:
    return TopicConfig.from_mapping(overrides)
