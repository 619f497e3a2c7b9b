"""File systems made for a test: an ext4 or XFS in a file behind a loop device, a tmpfs of a given size.

Only root may mount, and not in every container: the tests that need it skip with a word of why.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same for ext4 and XFS
LOG_FLUSH = 1  # the journal is written out first: metadata on the disk, data that nobody synced not
NO_LOG_FLUSH = 2  # nothing is written any more
IMAGE_BYTES = {"ext4": 96 << 20, "xfs": 320 << 20}  # sparse; XFS makes none below 300 MiB
TOOL_TIMEOUT_S = 30.0
UMOUNT_TRIES = 200
UMOUNT_PAUSE_S = 0.02


def why_no_mounts(*tools: str) -> str | None:
    """Why nothing can be mounted here, or None."""
    missing = [tool for tool in ("mount", "umount", *tools) if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid():
        return "only root may mount"
    return f"there is no {' and no '.join(missing)}" if missing else None


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TOOL_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


def unmount(path: Path) -> None:
    """Let go of it; whoever was killed may take a moment to let go of its files."""
    for _ in range(UMOUNT_TRIES):
        try:
            _run("umount", str(path))
            return
        except OSError as error:
            if "busy" not in str(error):
                raise
            time.sleep(UMOUNT_PAUSE_S)
    raise OSError(f"{path} stays busy")


class Drive:
    """A file system in a file. `options` go to mount(8)."""

    def __init__(self, folder: Path, filesystem: str, options: str = "") -> None:
        self.mounted_at = folder / "drive"
        self.keep = False  # the image, as evidence
        self._filesystem = filesystem
        self._image = folder / "drive.img"
        self._options = ",".join(["loop", *([options] if options else [])])

    def make(self) -> None:
        """Format and mount it. Raises OSError."""
        self.mounted_at.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES[self._filesystem])
        _run(f"mkfs.{self._filesystem}", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-t", self._filesystem, "-o", self._options, str(self._image), str(self.mounted_at))

    def unmount(self) -> None:
        unmount(self.mounted_at)

    def cut(self, flag: int) -> None:
        """From here on nothing reaches the image (ioctl_ext4(2) has no page for it; xfstests' `godown` does this)."""
        descriptor = os.open(self.mounted_at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", flag))
        finally:
            os.close(descriptor)

    def destroy(self) -> None:
        if os.path.ismount(self.mounted_at):
            self.unmount()
        if not self.keep:
            self._image.unlink(missing_ok=True)


@contextmanager
def drive(folder: Path, filesystem: str, options: str = "") -> Iterator[Drive]:
    """A mounted drive while the block runs; the test is skipped where none can be had."""
    why = why_no_mounts(f"mkfs.{filesystem}")
    made = Drive(folder, filesystem, options)
    try:
        if why is None:
            try:
                made.make()
            except OSError as error:
                why = str(error)
        if why is not None:
            pytest.skip(f"the power was NOT cut on {filesystem}: {why}")
        yield made
    finally:
        made.destroy()


@contextmanager
def tmpfs(folder: Path, size_bytes: int) -> Iterator[Path]:
    """A file system in memory, of this size, while the block runs; the test is skipped where none can be had."""
    why = why_no_mounts()
    folder.mkdir()
    if why is None:
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))
        except OSError as error:
            why = str(error)
    if why is not None:
        pytest.skip(f"no disk was full: {why}")
    try:
        yield folder
    finally:
        unmount(folder)
