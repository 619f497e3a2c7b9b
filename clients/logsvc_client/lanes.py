"""Which records wait behind which, in one partition of one member: the records that are not done, by their keys.

A record that failed or was parked is outstanding until its outcome is certain; later records of its key wait for that. The
broker hands out several of a key at once, or each would cost a round trip. Only one of them at a time, the leader, is for the
user to have; when its outcome is certain, the next one leads.

Keys are known by their hash, which is what the broker keeps of them, and by themselves where this member has seen the record:
asking whether a record waits is then one look into a dict.
"""

from collections import deque
from typing import TypeVar

from logsvc_client.records import Record
from logsvc_common.keys import murmur2

KeyT = TypeVar("KeyT")


class Lanes:
    """The outstanding records. Key hashes are None for records without a key, which nothing waits for."""

    __slots__ = ("_by_hash", "_by_key", "_followers", "_hash_only", "_leaders", "_outstanding")

    def __init__(self) -> None:
        self._outstanding: dict[int, tuple[int | None, bytes | None]] = {}  # by offset: the key's hash, and the key if known
        self._by_hash: dict[int, int] = {}  # how many outstanding records each key has
        self._by_key: dict[bytes, int] = {}  # the same, of records whose key is known
        self._hash_only = 0  # how many have a key that is not
        self._leaders: dict[int, int] = {}
        self._followers: dict[int, deque[Record]] = {}

    def __bool__(self) -> bool:
        return bool(self._outstanding)

    def add(self, offset: int, key_hash: int | None, key: bytes | None = None) -> None:
        """A record is outstanding from now on."""
        if offset in self._outstanding:
            return
        self._outstanding[offset] = (key_hash, key)
        if key_hash is not None:
            self._by_hash[key_hash] = self._by_hash.get(key_hash, 0) + 1
            if key is None:
                self._hash_only += 1
            else:
                self._by_key[key] = self._by_key.get(key, 0) + 1

    def remove(self, offset: int) -> Record | None:
        """The outcome of a record is certain. Returns the one that leads its key now, if there is another."""
        if offset not in self._outstanding:
            return None
        key_hash, key = self._outstanding.pop(offset)
        if key_hash is None:
            return None
        _count_down(self._by_hash, key_hash)
        if key is None:
            self._hash_only -= 1
        else:
            _count_down(self._by_key, key)
        return self._next(key_hash) if self._leaders.get(key_hash) == offset else None

    def __contains__(self, offset: object) -> bool:
        return offset in self._outstanding

    # New records

    def waits(self, key: bytes | None) -> bool:
        """True while an earlier record of this key is outstanding."""
        if key is None or not self._by_hash:
            return False
        return key in self._by_key or (self._hash_only > 0 and murmur2(key) in self._by_hash)

    def any_waits(self, records: list[Record]) -> bool:
        """True when one of these perhaps has to wait. Of thousands, the usual answer is no."""
        by_key = self._by_key
        return bool(self._hash_only) or (bool(by_key) and any(map(by_key.__contains__, [record.key for record in records])))

    # Redelivered records

    def lead(self, offset: int, key_hash: int) -> bool:
        """True when a record that was handed out again leads its key: no other that was is before it."""
        return self._leaders.setdefault(key_hash, offset) >= offset

    def follow(self, record: Record, key_hash: int) -> None:
        """A record that does not lead waits for its turn. They come in order, but for a dead letter that is redriven, which may
        be older than those that wait; one that is there already came twice."""
        followers = self._followers.setdefault(key_hash, deque())
        place = len(followers)
        while place and followers[place - 1].offset > record.offset:
            place -= 1
        if not place or followers[place - 1].offset < record.offset:
            followers.insert(place, record)

    def _next(self, key_hash: int) -> Record | None:
        followers = self._followers.get(key_hash)
        if not followers:
            self._followers.pop(key_hash, None)
            del self._leaders[key_hash]
            return None
        record = followers.popleft()
        self._leaders[key_hash] = record.offset
        return record


def _count_down(counts: dict[KeyT, int], key: KeyT) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
