"""The disk port: every byte that storage reads or writes passes through `Disk` and `File`.

Two implementations: `RealDisk` here, and `logsvc.testing.simulated_disk.SimulatedDisk`, which forgets what was not fsynced and
fails on demand. The port is as thin as the system calls (short writes stay short, errors are OSError), so that what must
survive a bad disk, the completing and taking back of writes, lies in shared functions above it and is tested with both.

Durability follows fsync(2): `File.datasync` makes a file's bytes and length durable, its name only after `Disk.sync_dir`
of its folder. A datasync that failed is never tried again: the kernel may have dropped the dirty pages and would then
report success (the "fsyncgate" of PostgreSQL, 2018).
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from logsvc_common.batch import Buffer
from logsvc_common.errors import DataFolderLocked, DiskFull

FOLDER_MODE = 0o700
FILE_MODE = 0o600
SMALL_FILE_BYTES_MAX = 64 << 20  # files read whole: indexes, checkpoints, topic files

# A disk quota and RLIMIT_FSIZE say the same as a full disk: no more room here.
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class File(Protocol):
    """An open file. Every method may raise OSError. Safe to use from two threads at once, closing apart."""

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        """Write the buffers one after the other at `position`; the number of bytes written, which may be fewer."""

    def pread(self, length: int, position: int) -> bytes:
        """Up to `length` bytes at `position`; fewer only at the end of the file."""

    def truncate(self, size: int) -> None: ...
    def datasync(self) -> None: ...
    def size(self) -> int: ...
    def close(self) -> None: ...


class Disk(Protocol):
    """A file system. Paths are text joined with `/`. Every method may raise OSError."""

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> File: ...
    def exists(self, path: str) -> bool: ...
    def file_size(self, path: str) -> int: ...
    def modified_ms(self, path: str) -> int:
        """When the file was last written, in milliseconds since the epoch."""

    def listdir(self, path: str) -> list[str]: ...
    def make_dirs(self, path: str) -> None:
        """Make a folder of mode 0700 and the ones above it; one that exists is left as it is."""

    def rename(self, source: str, target: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def sync_dir(self, path: str) -> None: ...
    def free_bytes(self, path: str) -> int: ...
    def total_bytes(self, path: str) -> int: ...
    def lock(self, path: str) -> File:
        """Take the lock file for as long as the result stays open. Raises DataFolderLocked when another process has it."""


class RealFile:
    """A file descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pwritev(self, buffers: Sequence[Buffer], position: int) -> int:
        return os.pwritev(self._fd, buffers, position)

    def pread(self, length: int, position: int) -> bytes:
        return os.pread(self._fd, length, position)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def datasync(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class RealDisk:
    """The operating system's file system. Holds nothing: one per process or many, it is the same."""

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> File:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0) | os.O_CLOEXEC
        return RealFile(os.open(path, flags, FILE_MODE))

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def file_size(self, path: str) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_dirs(self, path: str) -> None:
        Path(path).mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def total_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_blocks * found.f_frsize

    def lock(self, path: str) -> File:
        # flock, not fcntl locks: those are dropped when any descriptor of the file is closed by this process.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise DataFolderLocked(locked_message(path, holder)) from None
        except OSError:
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return RealFile(fd)


def locked_message(path: str, holder: str) -> str:
    """What to tell whoever finds the lock file of a data folder taken by process `holder`."""
    return (
        f"the data folder {path.rpartition('/')[0]} is in use by another broker, process {holder}: "
        f"stop that one first (kill {holder}), or choose another --data-dir"
    )


def write_all(file: File, buffers: Sequence[Buffer], position: int) -> int:
    """Write every byte of `buffers` at `position`, the end of the file; return how many there were.

    All or nothing: a short write is completed, and when that fails the file is cut back to `position`, so no part of a
    batch stays behind. Raises DiskFull when there is no room, OSError for anything else (the file is then in doubt).
    """
    wanted = sum(map(len, buffers))
    try:
        written = file.pwritev(buffers, position)
        while written < wanted:
            rest = memoryview(b"".join(buffers))[written:]
            more = file.pwritev([rest], position + written)
            if more <= 0:
                raise OSError(errno.EIO, "the disk takes no more bytes and gives no reason")
            written += more
    except OSError as error:
        file.truncate(position)
        if error.errno in FULL_ERRNOS:
            raise DiskFull(f"no room on the disk for {wanted} bytes: {error.strerror}") from error
        raise
    return wanted


def read_small_file(disk: Disk, path: str) -> bytes:
    """The whole of a file that is at most `SMALL_FILE_BYTES_MAX` long. Raises OSError."""
    file = disk.open(path, writable=False)
    try:
        size = file.size()
        if size > SMALL_FILE_BYTES_MAX:
            raise OSError(errno.EFBIG, f"{path} has {size} bytes, at most {SMALL_FILE_BYTES_MAX} make sense")
        return file.pread(size, 0)
    finally:
        file.close()


def write_file(disk: Disk, path: str, content: Buffer, *, durable: bool) -> None:
    """Make `path` hold exactly `content`, overwriting in place: for derived or temporary files. Raises DiskFull, OSError."""
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        write_all(file, [content], 0)
        if durable:
            file.datasync()
    finally:
        file.close()


def make_folder(disk: Disk, path: str) -> None:
    """Make a folder and those above it that are missing, each with a durable name. Raises OSError."""
    missing = []
    while path and not disk.exists(path):
        missing.append(path)
        path = path.rpartition("/")[0]
    for folder in reversed(missing):
        disk.make_dirs(folder)
        disk.sync_dir(folder.rpartition("/")[0] or ("/" if folder.startswith("/") else "."))


def replace_file(disk: Disk, folder: str, name: str, content: Buffer) -> None:
    """Put `content` under `name` at once and durably: after a crash the file is the old one or the new one, whole.

    Temporary file, fsync, rename, fsync of the folder. The temporary name is `NAME.tmp`; recovery removes leftovers.
    """
    temporary = f"{folder}/{name}.tmp"
    write_file(disk, temporary, content, durable=True)
    disk.rename(temporary, f"{folder}/{name}")
    disk.sync_dir(folder)
