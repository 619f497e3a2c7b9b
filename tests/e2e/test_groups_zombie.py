"""A member that stops for longer than its session and comes back: it is fenced, nothing is lost, nothing has two owners."""

from collections import Counter
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin
from logsvc_common.errors import FencedMemberEpoch, UnknownMember
from logsvc_common.messages import Commit, CommitPartition, DescribeGroupReply
from logsvc_common.names import dead_letter_topic
from tests.e2e.raw_peer import RawPeer
from tests.e2e.workforce import Entry, Orders, Workforce, dead_letters, described, is_finished, produce, two_owners

TOPIC = "zombie"
RECORDS = 3_000
PARTITIONS = 6
WORKERS = 3
SESSION_MS = 2_000
HANDLER_S = 0.003


class Committed:
    """The committed offset of each partition, as often as somebody looks; AssertionError when one has gone back."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._offsets: dict[int, int] = {}

    def look(self) -> DescribeGroupReply | None:
        found = described(self._admin, TOPIC)
        for part in found.partitions if found is not None else []:
            assert part.committed >= self._offsets.get(part.partition, -1), f"partition {part.partition} went back: {part}"
            self._offsets[part.partition] = part.committed
        return found


def last_of(entries: list[Entry], member: str) -> Entry:
    return next(entry for entry in reversed(entries) if entry.member == member)


@pytest.mark.timeout(180)
def test_the_late_commit_of_a_stopped_member_is_fenced_and_nothing_is_lost(broker: BrokerProcess, tmp_path: Path) -> None:
    places = produce(broker.server, TOPIC, [b"record %d" % n for n in range(RECORDS)], keys=300, partitions=PARTITIONS)
    orders = Orders(
        server=broker.server, topic=TOPIC, group=TOPIC, journal="", session_timeout_ms=SESSION_MS, handler_s=HANDLER_S
    )
    with (
        Admin(broker.server) as admin,
        RawPeer(broker.server) as peer,
        Workforce(tmp_path / "workers", WORKERS, orders) as workers,
    ):
        committed = Committed(admin)

        def members() -> set[str]:
            found = committed.look()
            return set() if found is None else {member.member_id for member in found.members if member.owned}

        def at_work() -> set[str]:
            return {entry.member for entry in workers.journal()} & members()

        workers.wait_until(lambda: len(at_work()) == WORKERS, 60, "three members handle records")
        victim = workers.journal()[-1]
        with workers.frozen(victim.pid):
            last = last_of(workers.journal(), victim.member)
            workers.wait_until(lambda: victim.member not in members(), 60, "the stopped member is taken for dead")
            workers.wait_until(lambda: len(members()) == WORKERS - 1, 60, "two members share its work")
            end = admin.describe_group(TOPIC).partitions[last.partition].end_offset
            # What it would say if it were asked now: that it is done with the whole partition.
            late = Commit(TOPIC, last.member, last.epoch, [CommitPartition(TOPIC, last.partition, end)])
            assert isinstance(peer.refusal(late), UnknownMember | FencedMemberEpoch)
            assert admin.describe_group(TOPIC).partitions[last.partition].committed < end
            assert admin.describe_group(TOPIC).epoch > last.epoch
        workers.wait_until(lambda: "membership lost" in workers.log(), 60, "the member that comes back is told")
        workers.wait_until(lambda: committed.look() is not None and is_finished(admin, TOPIC, PARTITIONS), 120, "all has ended")
        workers.wait_until(lambda: victim.member in members(), 60, "it is a member again")
        assert workers.deaths == []
    entries = workers.journal()
    done = Counter((entry.partition, entry.offset) for entry in entries if entry.what == "done")
    again = {place: count for place, count in done.items() if count > 1}
    after = [entry for entry in entries if entry.member == victim.member and entry.at > last.at]
    print(
        f"stopped in epoch {last.epoch}; {len(again)} records handled again; {len(after)} journal entries of it afterwards, "
        f"the first in epoch {after[0].epoch if after else None}"
    )
    assert done.keys() == places.keys()
    assert two_owners(entries) == []
    assert dead_letters(broker.server, dead_letter_topic(TOPIC, TOPIC), PARTITIONS) == []
    assert max(entry.attempt for entry in entries) == 1, "a death spent an attempt"
