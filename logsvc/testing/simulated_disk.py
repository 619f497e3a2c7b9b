"""A disk in memory that forgets what was not fsynced and fails when told to: `logsvc.storage.disk.Disk` for tests.

Every file and folder exists twice: as programs see it, and as it is on the platter. Between the two stand pending operations:
writes and truncations of a file until its `datasync`, and changes of names in a folder until its `sync_dir`. `crash` makes
the disk a reboot would find. With `ordered=True` a prefix of the pending operations survives (per file and folder), the last
write torn at any byte or missing any of its sectors: what a journaling file system does in practice. Without it any subset
survives, out of order: what POSIX allows.

A datasync that fails loses its pending writes for good although programs still see them, as Linux does: a second datasync that
"succeeds" saves nothing.

    disk = SimulatedDisk()
    disk.fail("datasync", nth=3)                    # EIO at the third datasync from now
    disk.hook = lambda operation: ...               # sees each operation before it happens; raise SimulatedCrash to stop there,
                                                    # SimulatedCrash(written=0.5) to stop half-way through a write
    survivor = disk.crash(random.Random(7))
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from logsvc.storage.disk import File, locked_message
from logsvc.testing.simulated_nodes import Change, FileNode, FolderNode, Node, used_bytes
from logsvc_common.batch import Buffer
from logsvc_common.errors import DataFolderLocked


class SimulatedCrash(BaseException):
    """The machine stopped here. No `except Exception` of the program under test may catch it.

    `written`: the share of the write it struck in that was done by then.
    """

    def __init__(self, *reasons: object, written: float = 0.0) -> None:
        super().__init__(*reasons)
        self.written = written


class Operation(NamedTuple):
    """One call of the port. `kind` is the name of the method; `open` becomes `create` when it makes the file."""

    number: int
    kind: str
    path: str


@dataclass
class _Fault:
    kind: str
    path_part: str
    countdown: int
    forever: bool
    error: int
    short_bytes: int | None


class SimulatedFile:
    """An open file of a `SimulatedDisk`."""

    def __init__(self, disk: "SimulatedDisk", path: str, node: FileNode, writable: bool) -> None:
        self._disk = disk
        self._path = path
        self._node = node
        self._writable = writable
        self._open = True

    def _step(self, kind: str) -> int | None:
        if not self._open:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        return self._disk.step(kind, self._path)

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        data = b"".join(buffers)
        try:
            short_bytes = self._step("write")
        except SimulatedCrash as crash:
            if part := data[: int(len(data) * crash.written)]:
                self._node.change(Change(position, part), self._disk.now_ms)
            raise
        if not self._writable:
            raise OSError(errno.EBADF, "the file is not open for writing", self._path)
        room = self._disk.room() + max(len(self._node.content) - position, 0)
        if data and room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        data = data[: room if short_bytes is None else min(room, short_bytes)]
        self._node.change(Change(position, data), self._disk.now_ms)
        return len(data)

    def pread(self, length: int, position: int) -> bytes:
        self._step("read")
        return bytes(self._node.content[position : position + length])

    def truncate(self, size: int) -> None:
        self._step("truncate")
        self._node.change(Change(size, None), self._disk.now_ms)

    def datasync(self) -> None:
        try:
            self._step("datasync")
        except OSError:
            self._node.pending.clear()
            raise
        self._disk.sync_file(self._node)

    def size(self) -> int:
        return len(self._node.content)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._disk.open_files -= 1


class _LockFile(SimulatedFile):
    def close(self) -> None:
        if self._open:
            self._disk.locks.discard(self._path)
        super().close()


class SimulatedDisk:
    """See the module. With `capacity_bytes` it fills up: writes become short, then fail with ENOSPC. `now_ms` dates files."""

    def __init__(self, *, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.now_ms = 0
        self.operations = 0
        self.open_files = 0
        self.hook: Callable[[Operation], None] | None = None
        self.locks: set[str] = set()
        self._root = FolderNode()
        self._faults: list[_Fault] = []

    # -- what tests do with it ----------------------------------------------------------------------------------------

    def fail(self, kind: str, *, nth: int = 1, path_part: str = "", error: int = errno.EIO, forever: bool = False) -> None:
        """The nth operation of `kind` from now, on a path that contains `path_part`, fails; with `forever` all after it too."""
        self._faults.append(_Fault(kind, path_part, nth, forever, error, None))

    def shorten_write(self, *, nth: int = 1, path_part: str = "", to_bytes: int = 0) -> None:
        """The nth write from now writes only `to_bytes` and reports that."""
        self._faults.append(_Fault("write", path_part, nth, False, 0, to_bytes))

    def heal(self) -> None:
        """No more faults."""
        self._faults.clear()

    def crash(self, rng: Random, *, ordered: bool = False) -> "SimulatedDisk":
        """The disk after a power cut now. This one is left as it is: crash it again with other luck."""
        survivor = type(self)(capacity_bytes=self.capacity_bytes)
        survivor.now_ms = self.now_ms
        survivor._root = self._root.after_crash(rng, ordered)
        return survivor

    def kill(self) -> "SimulatedDisk":
        """The disk after kill -9 of the program: everything written is there, nothing more of it is durable than before."""
        self.locks.clear()
        self.open_files = 0
        self.hook = None
        self._faults.clear()
        return self

    def content(self, path: str) -> bytes:
        """The bytes of a file, as programs see them."""
        return bytes(self._file(path).content)

    def set_content(self, path: str, content: bytes) -> None:
        """Put bytes into a file behind the program's back, durably: rot, cuts, swapped files. Makes it if need be."""
        folder, name = self._parent(path)
        folder.entries[name] = folder.durable[name] = FileNode(bytearray(content), bytearray(content), [], self.now_ms)

    def remove(self, path: str) -> None:
        """Take a file away behind the program's back, durably."""
        folder, name = self._parent(path)
        folder.entries.pop(name, None)
        folder.durable.pop(name, None)

    def used_bytes(self) -> int:
        return used_bytes(self._root)

    def room(self) -> int:
        return max(self.capacity_bytes - self.used_bytes(), 0) if self.capacity_bytes < 1 << 40 else 1 << 40

    # -- machinery ----------------------------------------------------------------------------------------------------

    def step(self, kind: str, path: str) -> int | None:
        """Count an operation, show it to the hook, fail it if it is due; the length a short write is cut to, if it is one."""
        self.operations += 1
        if self.hook is not None:
            self.hook(Operation(self.operations, kind, path))
        due = None
        for fault in self._faults:
            if fault.kind == kind and fault.path_part in path:
                fault.countdown -= 1
                if fault.countdown == 0 or (fault.forever and fault.countdown < 0):
                    due = due or fault
        if due is None:
            return None
        if due.short_bytes is None:
            raise OSError(due.error, os.strerror(due.error), path)
        return due.short_bytes

    def sync_file(self, node: FileNode) -> None:
        """What a datasync that works does; a mutant overrides it."""
        node.sync()

    def _folder(self, path: str) -> FolderNode:
        node: Node = self._root
        for part in _parts(path):
            if not isinstance(node, FolderNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            if part not in node.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = node.entries[part]
        if not isinstance(node, FolderNode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def _parent(self, path: str) -> tuple[FolderNode, str]:
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name

    def _file(self, path: str) -> FileNode:
        folder, name = self._parent(path)
        node = folder.entries.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if isinstance(node, FolderNode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    # -- the port -----------------------------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> File:
        folder, name = self._parent(path)
        if create and name not in folder.entries:
            self.step("create", path)
            if self.room() <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            folder.change((name, FileNode(modified_ms=self.now_ms)))
        else:
            self.step("open", path)
        node = self._file(path)
        self.open_files += 1
        return SimulatedFile(self, path, node, writable)

    def exists(self, path: str) -> bool:
        try:
            folder, name = self._parent(path)
        except OSError:
            return False
        return name in folder.entries

    def file_size(self, path: str) -> int:
        return len(self._file(path).content)

    def modified_ms(self, path: str) -> int:
        return self._file(path).modified_ms

    def listdir(self, path: str) -> list[str]:
        self.step("listdir", path)
        return sorted(self._folder(path).entries)

    def make_dirs(self, path: str) -> None:
        self.step("make_dirs", path)
        node = self._root
        for part in _parts(path):
            if part not in node.entries:
                node.change((part, FolderNode()))
            below = node.entries[part]
            if not isinstance(below, FolderNode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            node = below

    def rename(self, source: str, target: str) -> None:
        self.step("rename", source)
        folder, name = self._parent(source)
        other, new_name = self._parent(target)
        if other is not folder:
            raise OSError(errno.EXDEV, "renaming across folders is not simulated", source)
        if name not in folder.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        folder.change((name, None), (new_name, folder.entries[name]))

    def unlink(self, path: str) -> None:
        self.step("unlink", path)
        self._file(path)
        folder, name = self._parent(path)
        folder.change((name, None))

    def rmdir(self, path: str) -> None:
        self.step("rmdir", path)
        if self._folder(path).entries:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        folder, name = self._parent(path)
        folder.change((name, None))

    def sync_dir(self, path: str) -> None:
        self.step("sync_dir", path)
        self._folder(path).sync()

    def free_bytes(self, path: str) -> int:
        return self.room()

    def total_bytes(self, path: str) -> int:
        return min(self.capacity_bytes, 1 << 40)

    def lock(self, path: str) -> File:
        if path in self.locks:
            raise DataFolderLocked(locked_message(path, "1"))
        self.open(path, create=True).close()
        self.locks.add(path)
        node = self._file(path)
        self.open_files += 1
        return _LockFile(self, path, node, True)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
