"""Files and folders of the simulated disk, each in two states: as programs see it, and as it is on the platter.

Between the two stand pending changes, in order. `sync` carries them over; `after_crash` carries over as many as luck allows.
A write that a crash has caught survives whole, not at all, or torn: at any byte, or by sectors of 512 bytes, each of them for
itself, because a disk writes no less than a sector at once and any of them first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

SECTOR_BYTES = 512


class Change(NamedTuple):
    """A pending change of a file: a write of `data` at `position`, or, without data, a truncation to `position`."""

    position: int
    data: bytes | None


def apply(content: bytearray, change: Change, keep_bytes: int | None = None) -> None:
    """Carry out a change; a write torn after `keep_bytes` when given. Bytes never written read as zeros."""
    position, data = change
    if data is None:
        if position <= len(content):
            del content[position:]
        else:
            content.extend(bytes(position - len(content)))
        return
    if keep_bytes is not None:
        data = data[:keep_bytes]
    if data and position > len(content):
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


@dataclass
class FileNode:
    """A file: what programs see, what is durable, and the changes between."""

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    modified_ms: int = 0

    def change(self, change: Change, now_ms: int) -> None:
        apply(self.content, change)
        self.pending.append(change)
        self.modified_ms = now_ms

    def sync(self) -> None:
        for change in self.pending:
            apply(self.durable, change)
        self.pending.clear()

    def after_crash(self, rng: Random, ordered: bool) -> "FileNode":
        if not self.pending:
            return FileNode(self.durable[:], self.durable[:], [], self.modified_ms)
        content = self.durable[:]
        for change in self.pending:
            fate = rng.random()
            if fate < 0.4:
                apply(content, change)
                continue
            if fate < 0.6 and change.data:
                apply(content, change, keep_bytes=rng.randrange(len(change.data)))
            elif fate < 0.75 and change.data:
                _apply_sectors(content, change.position, change.data, rng)
            if ordered:
                break
        return FileNode(content, content[:], [], self.modified_ms)


def _apply_sectors(content: bytearray, position: int, data: bytes, rng: Random) -> None:
    """Some sectors of a write. The file may have its new size already: what is missing reads as zeros then."""
    if rng.random() < 0.5:
        content.extend(bytes(max(position + len(data) - len(content), 0)))
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + SECTOR_BYTES - (position + begin) % SECTOR_BYTES)
        if rng.random() < 0.5:
            apply(content, Change(position + begin, data[begin:end]))
        begin = end


Names = list[tuple[str, "Node | None"]]  # changes of names that happen at once; None removes


@dataclass
class FolderNode:
    """A folder: its names as programs see them, the durable ones, and the changes between; a rename is one change."""

    entries: "dict[str, Node]" = field(default_factory=dict)
    durable: "dict[str, Node]" = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)

    def change(self, *names: "tuple[str, Node | None]") -> None:
        self.pending.append(list(names))
        apply_names(self.entries, names)

    def sync(self) -> None:
        for names in self.pending:
            apply_names(self.durable, names)
        self.pending.clear()

    def after_crash(self, rng: Random, ordered: bool) -> "FolderNode":
        entries = dict(self.durable)
        for names in self.pending:
            if rng.random() < 0.5:
                apply_names(entries, names)
            elif ordered:
                break
        survived = {name: node.after_crash(rng, ordered) for name, node in entries.items()}
        return FolderNode(survived, dict(survived), [])


Node = FileNode | FolderNode


def apply_names(entries: dict[str, Node], names: "Sequence[tuple[str, Node | None]]") -> None:
    for name, node in names:
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def used_bytes(node: Node) -> int:
    if isinstance(node, FileNode):
        return len(node.content)
    return sum(used_bytes(below) for below in node.entries.values())
