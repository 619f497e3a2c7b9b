"""What can go wrong at one disk operation: the modes of the nth-operation loop, each a hook of the simulated disk.

An operation is known by its number, counted from the start of the script over all lives of the broker. A fault `once` strikes
that one; `forever` strikes it and all that follow: every operation for a dead disk, those that need room for a full one,
those of one folder for a bad spot. A short write writes a few bytes and says so. `kill` and `power_cut` stop the machine before
the operation, which is also after the one before it.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from logsvc.testing.simulated_disk import Operation, SimulatedCrash
from tests.simulation.scripted_shop import Shop

# What may need a block or an inode. A rename does in a folder that is full; a sync does with delayed allocation.
NEEDS_ROOM = frozenset({"create", "write", "make_dirs", "truncate", "rename", "datasync", "sync_dir"})
TAKES_ROOM = frozenset({"create", "write", "make_dirs"})  # what fails on a disk that is full and stays so
EVERY_KIND = NEEDS_ROOM | {"open", "read", "listdir", "unlink", "rmdir"}
SHORT_BYTES = 61  # short writes are up to so long: they end within a batch header, or right behind it


@dataclass(frozen=True)
class Mode:
    """`applies` says to which kinds of operations; `strike(fault, operation)` what happens at the operation and after it."""

    name: str
    applies: frozenset[str]
    strike: Callable[["Fault", Operation], None]
    stops: bool = False  # the machine stops there


class Fault:
    """One mode at one operation, as the hook of a shop's disk. `folder` is where it struck, None when it has not."""

    def __init__(self, mode: Mode, number: int, shop: Shop | None = None) -> None:
        self.mode = mode
        self.number = number
        self.folder: str | None = None
        self.kind = ""
        self.struck = 0
        self.shop = shop or Shop(self)
        self.shop.hook = self

    def __call__(self, operation: Operation) -> None:
        if operation.number < self.number:
            return
        if operation.number == self.number:
            self.kind, self.folder = operation.kind, folder_of(operation.path)
            if operation.kind not in self.mode.applies:
                return
        if self.folder is not None:
            self.mode.strike(self, operation)

    def fail(self, error: int, operation: Operation) -> None:
        self.struck += 1
        raise OSError(error, os.strerror(error), operation.path)


def folder_of(path: str) -> str:
    """The name of the partition folder a path lies in; for anything else the path of its folder."""
    parts = path.split("/")
    if len(parts) > 2 and parts[2][-1:].isdigit():
        return parts[2]
    return "/".join(parts[:3]) if len(parts) > 3 else path


def _once(error: int) -> Callable[[Fault, Operation], None]:
    def strike(fault: Fault, operation: Operation) -> None:
        if operation.number == fault.number:
            fault.fail(error, operation)

    return strike


def _dead(fault: Fault, operation: Operation) -> None:
    fault.fail(errno.EIO, operation)


def _bad_spot(fault: Fault, operation: Operation) -> None:
    if folder_of(operation.path) == fault.folder:
        fault.fail(errno.EIO, operation)


def _full(fault: Fault, operation: Operation) -> None:
    if operation.kind in TAKES_ROOM or operation.number == fault.number:
        fault.fail(errno.ENOSPC, operation)


def _short(fault: Fault, operation: Operation) -> None:
    if operation.number == fault.number:
        fault.struck += 1
        fault.shop.disk.shorten_write(to_bytes=fault.number * 7 % SHORT_BYTES)


def _short_then_full(fault: Fault, operation: Operation) -> None:
    if operation.number == fault.number:
        _short(fault, operation)
    elif operation.kind in TAKES_ROOM:
        fault.fail(errno.ENOSPC, operation)


def _stop(fault: Fault, operation: Operation) -> None:
    fault.struck += 1
    raise SimulatedCrash(f"at {operation}")


def _stop_half_way(fault: Fault, operation: Operation) -> None:
    fault.struck += 1
    raise SimulatedCrash(f"at {operation}", written=(fault.number * 7 % 10) / 10)


MODES = {
    mode.name: mode
    for mode in (
        Mode("eio-once", EVERY_KIND, _once(errno.EIO)),
        Mode("enospc-once", NEEDS_ROOM, _once(errno.ENOSPC)),
        Mode("short-write-once", frozenset({"write"}), _short),
        Mode("eio-in-its-folder-forever", EVERY_KIND, _bad_spot),
        Mode("eio-forever", EVERY_KIND, _dead),
        Mode("enospc-forever", NEEDS_ROOM, _full),
        Mode("short-write-then-full", frozenset({"write"}), _short_then_full),
        Mode("kill", EVERY_KIND, _stop, stops=True),
        Mode("kill-within-a-write", frozenset({"write"}), _stop_half_way, stops=True),
        Mode("power-cut", EVERY_KIND, _stop, stops=True),
    )
}
