"""Topic files: what a data folder knows of each topic besides its partitions.

    topics/TOPIC_ID.json      {"name": ..., "topic_id": ..., "partitions": 4, "overrides": {...}, "internal": false}
    topics/TOPIC_ID.deleted   the same, once deletion has begun

The topic file is the commit point: partition folders are made first, then the file is put in place (temporary file, fsync,
rename, fsync of the folder). Deletion begins with renaming it, also durably; whatever a crash leaves is finished at the
next start. Files are named by id, because a topic name may already be as long as a file name can be.
"""

import logging
from collections.abc import Mapping

import msgspec

from logsvc.storage.disk import Disk, make_folder, read_small_file, replace_file

FOLDER = "topics"
_SUFFIX = ".json"
_DELETED_SUFFIX = ".deleted"
_LOG = logging.getLogger(__name__)


class TopicFile(msgspec.Struct, frozen=True):
    """The content of a topic file. `overrides` are the settings that differ from the defaults, as text."""

    name: str
    topic_id: str
    partitions: int
    overrides: dict[str, str]
    internal: bool = False


class TopicStore:
    """Reads and writes the topic files of one data folder. Every method may raise OSError, writing ones DiskFull."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._folder = f"{path}/{FOLDER}"

    def prepare(self) -> None:
        """Make the folder, remove temporary files, and make durable what names there are: after kill -9 one may be in the
        page cache only, and whoever is told that a topic exists may rely on it."""
        make_folder(self._disk, self._folder)
        self.sync()
        for name in self._disk.listdir(self._folder):
            if name.endswith(".tmp"):
                self._disk.unlink(f"{self._folder}/{name}")

    def load(self) -> list[TopicFile]:
        """Every topic that was not deleted. A file that cannot be understood is renamed `*.corrupt` and left out, loudly."""
        found = []
        for name in self._disk.listdir(self._folder):
            if not name.endswith(_SUFFIX):
                continue
            path = f"{self._folder}/{name}"
            try:
                found.append(msgspec.json.decode(read_small_file(self._disk, path), type=TopicFile))
            except msgspec.MsgspecError as error:
                _LOG.error("%s is not a topic file (%s): renamed to %s.corrupt", path, error, name)
                self._disk.rename(path, f"{path}.corrupt")
        return found

    def save(self, topic: TopicFile) -> None:
        """Put the file in place, durably."""
        content = msgspec.json.format(msgspec.json.encode(topic), indent=2) + b"\n"
        replace_file(self._disk, self._folder, topic.topic_id + _SUFFIX, content)

    def begin_delete(self, topic_id: str) -> None:
        """From here on the topic is gone, durably after `sync`; its data is not yet."""
        self._disk.rename(f"{self._folder}/{topic_id}{_SUFFIX}", f"{self._folder}/{topic_id}{_DELETED_SUFFIX}")

    def sync(self) -> None:
        """Make the names of all topic files durable."""
        self._disk.sync_dir(self._folder)

    def deletions(self) -> list[TopicFile]:
        """Topics whose deletion has begun."""
        paths = [f"{self._folder}/{name}" for name in self._disk.listdir(self._folder) if name.endswith(_DELETED_SUFFIX)]
        return [msgspec.json.decode(read_small_file(self._disk, path), type=TopicFile) for path in paths]

    def end_delete(self, topic_id: str) -> None:
        """Nothing of the topic is left."""
        self._disk.unlink(f"{self._folder}/{topic_id}{_DELETED_SUFFIX}")
        self._disk.sync_dir(self._folder)


def overrides_after(overrides: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Overrides with changes applied; None takes a setting back to its default."""
    merged: dict[str, str | None] = {**overrides, **changes}
    return {name: value for name, value in merged.items() if value is not None}
