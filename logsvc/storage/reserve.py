"""Room kept free on the disk, so that writes are refused while reads, commits and checkpoints still have what they need."""

from logsvc.storage.disk import Disk
from logsvc_common.errors import DiskFull

MEASURE_EVERY_BYTES_MIN = 1 << 20


class DiskReserve:
    """Refuses ordinary writes when fewer than `reserve_bytes` are free. Shared by all partitions of a data folder.

    Free space is measured once per 1/16 of the reserve written, and at every write while there is too little, so that
    writes resume as soon as room is made. Internal topics are written without asking. Two threads asking at once do no
    harm: at worst space is measured once more.
    """

    def __init__(self, disk: Disk, path: str, reserve_bytes: int) -> None:
        self._disk = disk
        self._path = path
        self.reserve_bytes = reserve_bytes
        self._interval = max(reserve_bytes // 16, MEASURE_EVERY_BYTES_MIN)
        self._unmeasured = self._interval
        self.full = False

    def take(self, size: int) -> None:
        """Account for a write of `size` bytes. Raises DiskFull."""
        self._unmeasured += size
        if self._unmeasured >= self._interval or self.full:
            self._measure(size)

    def _measure(self, size: int) -> None:
        try:
            free = self._disk.free_bytes(self._path)
        except OSError as error:
            raise DiskFull(f"free space of the disk is not known: {error}") from error
        self.full = free - size < self.reserve_bytes
        if self.full:
            raise DiskFull(
                f"{free} bytes are free on the disk and {self.reserve_bytes} are kept in reserve: writes are refused"
            )
        self._unmeasured = 0
