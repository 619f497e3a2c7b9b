"""Copies of commits that come late: the network held them back, or their sender was stopped and goes on where it was.

All they say was committed before. So whenever they come they must change nothing, and a sender that does not hold the partition
any more, or holds it again since, must be told so.
"""

from collections import deque

from logsvc_common.errors import GroupError
from logsvc_common.messages import Commit, CommitPartition, CommitReply
from tests.property.group_world import Client, World

HELD_BACK_MAX = 10


class LateCommits:
    """The copies that are on their way in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._copies: deque[Commit] = deque(maxlen=HELD_BACK_MAX)

    def hold_back(self, client: Client, partition: int) -> None:
        """A copy of the commit that brought `client` where it is."""
        reading = client.readings.get(partition)
        if reading is None or client.unanswered is not None or reading.position == 0:
            return
        part = CommitPartition("t", partition, reading.position)
        self._copies.append(Commit("g", client.name, client.epoch, [part], self._world.policy))

    def arrive(self, which: int) -> None:
        """One of them reaches the broker: 0 the first that was held back, -1 the last."""
        if not self._copies:
            return
        self._copies.rotate(-which)
        late = self._copies.popleft()
        partition = late.partitions[0].partition
        before = self._world.recorded(partition)
        accepted = self._is_accepted(late)
        assert self._world.recorded(partition) == before, "a commit that came late has changed something"
        assert not accepted or self._holds_since(late), "a commit of somebody who does not hold the partition was accepted"

    def _is_accepted(self, late: Commit) -> bool:
        try:
            reply = self._world.broker.handle(late).reply
        except GroupError:
            return False
        self._world.take_effects()
        assert isinstance(reply, CommitReply)
        return reply.results[0].error_code == 0

    def _holds_since(self, late: Commit) -> bool:
        """True when the sender was given the partition at or before the epoch it speaks of, and holds it still."""
        group = self._world.broker.coordinator._groups.get("g")
        member = group.members.get(late.member_id) if group is not None else None
        given = member.holds(("t", late.partitions[0].partition)) if member is not None else None
        return given is not None and given <= late.member_epoch
