"""What the broker's process takes, and who is connected to it, as Linux tells it (proc(5))."""

import os
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc/self")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


_ESTABLISHED = "01"


class Process(NamedTuple):
    """Resident memory; open files, sockets among them; TCP connections of clients. None where the system does not say."""

    memory_bytes: int | None = None
    open_files: int | None = None
    connected_clients: int | None = None


def measure(endpoint: str) -> Process:
    """The process now; `endpoint` is where its clients connect. It reads all connections of the machine: not for the event
    loop."""
    try:
        resident_pages = int((_PROC / "statm").read_text().split()[1])
        open_files = len(os.listdir(_PROC / "fd"))
        return Process(resident_pages * _PAGE_BYTES, open_files, _connections(int(endpoint.rpartition(":")[2])))
    except (OSError, ValueError):  # not Linux, or /proc is not mounted
        return Process()


def _connections(port: int) -> int:
    """Established TCP connections to a local port."""
    count = 0
    for table in ("tcp", "tcp6"):
        path = _PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            _, local, _, state, *_ = line.split()
            count += state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port
    return count
