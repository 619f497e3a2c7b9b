"""Power cuts on a real file system: an ext4 or XFS in a file, mounted through a loop device, and its shutdown ioctl.

    ioctl(fd, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)   from here on nothing reaches the image: the journal stops where it is, every
                                               page not yet written is lost, every call of the broker ends in EIO
    SIGKILL, umount, mount                     the machine comes up again; the file system replays its journal
    start                                      the broker finds what a power cut leaves

The broker lives on for a moment, as on no machine without power, and each of its writes and fsyncs fails. But an fsync that is
under way at the cut may return 0 with nothing written (jbd2_complete_transaction takes a transaction that it no longer finds
for a committed one, also when it was aborted). So what is acknowledged between the cut and the kill proves nothing: it may be
there or not, and is counted on its own. Acknowledged before the cut means there after it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from logsvc.storage.disk import RealDisk
from logsvc.storage.verify import Report, verify
from logsvc.testing.process import BrokerProcess
from logsvc_common import messages as m
from tests.crash.mounts import LOG_FLUSH, NO_LOG_FLUSH, Drive
from tests.crash.nursery import Nursery
from tests.e2e.raw_peer import RawPeer

# The disk is smaller than the reserve that a broker keeps free by default.
ENVIRONMENT = {"LOGSVC_DISK_RESERVE_BYTES": str(1 << 20)}
FILESYSTEMS = {
    "ext4": ("ext4", ""),
    # Without delayed allocation and data ordering a torn tail is what one finds: sizes are on the disk before the bytes are.
    "ext4 writeback": ("ext4", "data=writeback,nodelalloc"),
    "xfs": ("xfs", ""),
}
LIVES_ON_S = 0.02  # a broker whose disk is gone, before it is killed too


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
