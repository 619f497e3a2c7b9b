"""Power cuts on a real file system: an ext4 or XFS in a file, mounted through a loop device, and its shutdown ioctl.

    ioctl(fd, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)   from here on nothing reaches the image: the journal stops where it is, every
                                               page not yet written is lost, every call of the broker ends in EIO
    SIGKILL, umount, mount                     the machine comes up again; the file system replays its journal
    start                                      the broker finds what a power cut leaves

The broker lives on for a moment, as on no machine without power, and each of its writes and fsyncs fails. But an fsync that is
under way at the cut may return 0 with nothing written (jbd2_complete_transaction takes a transaction that it no longer finds
for a committed one, also when it was aborted). So what is acknowledged between the cut and the kill proves nothing: it may be
there or not, and is counted on its own. Acknowledged before the cut means there after it.
XFS takes the same number (XFS_IOC_GOINGDOWN). See ioctl_ext4(2); xfstests does the same (`godown`).
"""

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from logsvc.storage.disk import RealDisk
from logsvc.storage.verify import Report, verify
from logsvc.testing.process import BrokerProcess
from logsvc_common import messages as m
from tests.crash.nursery import Nursery
from tests.e2e.raw_peer import RawPeer

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), the same for ext4 and XFS
LOG_FLUSH = 1  # the journal is written out first: metadata on the disk, data that nobody synced not
NO_LOG_FLUSH = 2  # nothing is written any more
IMAGE_BYTES = {"ext4": 96 << 20, "xfs": 320 << 20}  # sparse; XFS makes none below 300 MiB
# The disk is smaller than the reserve that a broker keeps free by default.
ENVIRONMENT = {"LOGSVC_DISK_RESERVE_BYTES": str(1 << 20)}
TOOL_TIMEOUT_S = 30.0
LIVES_ON_S = 0.02  # a broker whose disk is gone, before it is killed too
UMOUNT_TRIES = 200
UMOUNT_PAUSE_S = 0.02


def skip_without_mounts(filesystem: str) -> None:
    """Loop devices, mount(2) and mkfs must be there and allowed: in many containers they are not."""
    tools = ["mount", "umount", f"mkfs.{filesystem}"]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    why = ""
    if sys.platform != "linux" or os.geteuid():
        why = "only root may mount"
    elif missing:
        why = f"there is no {' and no '.join(missing)}"
    elif not Path("/dev/loop-control").exists():
        why = "there are no loop devices"
    if why:
        pytest.skip(f"the power was NOT cut: {why} on this machine")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TOOL_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


class Drive:
    """A file system in a file. `options` go to mount(8)."""

    def __init__(self, folder: Path, filesystem: str, options: str = "") -> None:
        self.filesystem = filesystem
        self.mounted_at = folder / "drive"
        self._image = folder / "drive.img"
        self._options = ",".join(["loop", *([options] if options else [])])

    def make(self) -> None:
        """Format and mount it. Skips the test where mounting is forbidden."""
        self.mounted_at.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES[self.filesystem])
        _run(f"mkfs.{self.filesystem}", "-q", str(self._image))
        try:
            self.mount()
        except OSError as error:
            pytest.skip(f"the power was NOT cut: {error}")

    def mount(self) -> None:
        _run("mount", "-t", self.filesystem, "-o", self._options, str(self._image), str(self.mounted_at))

    def unmount(self) -> None:
        """Let go of it; whoever was killed may take a moment to let go of its files."""
        for _ in range(UMOUNT_TRIES):
            try:
                _run("umount", str(self.mounted_at))
                return
            except OSError as error:
                if "busy" not in str(error):
                    raise
                time.sleep(UMOUNT_PAUSE_S)
        raise OSError(f"{self.mounted_at} stays busy")

    def cut(self, flag: int) -> None:
        """From here on nothing reaches the image."""
        descriptor = os.open(self.mounted_at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", flag))
        finally:
            os.close(descriptor)

    def destroy(self) -> None:
        if os.path.ismount(self.mounted_at):
            self.unmount()
        self._image.unlink(missing_ok=True)


@dataclass
class PowerCuts:
    """A `World` for `kill_run`: brokers on a drive, each blow a power cut. One in `flushed_every` writes the journal first."""

    drive: Drive
    nursery: Nursery
    pause_s: tuple[float, float] = (0.0, 0.1)
    takes_unsynced: bool = True
    flushed_every: int = 4
    cuts: int = 0
    torn: int = 0
    degraded: list[str] = field(default_factory=list)
    report: Report | None = None
    _off: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def broker(self, folder: Path) -> Iterator[BrokerProcess]:
        data_dir = self.drive.mounted_at / "data"
        with self.nursery.broker(data_dir, "--log-level", "warning", "--http-port", "-1") as broker:
            yield broker
            self._note_states(broker)
            broker.stop()
            self.torn = len(list(data_dir.glob("*/*.torn")))
            self.report = verify(RealDisk(), str(data_dir))

    def strike(self, broker: BrokerProcess) -> None:
        with self._off:
            self.cuts += 1
            self.drive.cut(LOG_FLUSH if self.cuts % self.flushed_every == 0 else NO_LOG_FLUSH)
        time.sleep(LIVES_ON_S * (self.cuts % 3) / 2)

    def clear(self, broker: BrokerProcess) -> None:
        broker.kill()
        self.drive.unmount()
        self.drive.mount()

    def _note_states(self, broker: BrokerProcess) -> None:
        with RawPeer(broker.server) as peer:
            for topic in peer.call(m.Metadata(None, True))[0].topics:
                self.degraded += [
                    f"{topic.topic}-{part.partition} {part.state}" for part in topic.partitions if part.state != "online"
                ]


@contextmanager
def drive(folder: Path, filesystem: str, options: str = "") -> Iterator[Drive]:
    """A mounted drive while the block runs."""
    skip_without_mounts(filesystem)
    made = Drive(folder, filesystem, options)
    try:
        made.make()
        yield made
    finally:
        made.destroy()
