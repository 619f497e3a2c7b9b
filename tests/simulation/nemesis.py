"""What goes wrong in a simulation, and what its operator does meanwhile: one method for each kind of fault of a plan.

To add one: a method here with its name in `_ACTS`, a weight in `plan.FAULTS`, and, when it can last, its end in `end`.
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from logsvc_common.errors import LogsvcError
from logsvc_common.messages import (
    BY_SHIFT,
    EARLIEST_OFFSET,
    ResetGroup,
    ResetGroupReply,
    StartRedrive,
    StartRedriveReply,
    TrimTopic,
    TrimTopicReply,
)
from tests.simulation.clients import SimulatedTransport
from tests.simulation.network import TO_BROKER, TO_CLIENT
from tests.simulation.plan import GROUPS, TOPIC

if TYPE_CHECKING:
    from tests.simulation.world import World

PATHS = ("/orders-", "/__logsvc_groups-", "/dlq.", "")
AWAY_MS = 5_000  # a group that is to be reset: its members have left, or their sessions have run out, by then


class Nemesis:
    """Draws from a stream of its own, so that one more fault does not change what the others do in the same way."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = world.stream("nemesis")
        self._over = False
        self._acts: dict[str, Callable[[], None]] = {
            "kill": lambda: self._death("kill"),
            "power cut": lambda: self._death("power cut"),
            "reset": self._reset_connection,
            "cut": lambda: self._cut(frozenset((TO_BROKER, TO_CLIENT))),
            "cut one way": lambda: self._cut(frozenset((self.rng.choice((TO_BROKER, TO_CLIENT)),))),
            "freeze": self._freeze,
            "kill client": self._kill_client,
            "replace member": self._replace_member,
            "wall clock": self._wall_clock,
            "slow disk": self._slow_disk,
            "disk error": self._disk_error,
            "short write": self._short_write,
            "disk full": self._disk_full,
            "trim": self._trim,
            "redrive": self._redrive,
            "reset group": self._reset_group,
        }

    def begin(self) -> None:
        for fault in self.world.plan.faults:
            self.world.time.call_later(fault.at_ms / 1_000, self._act, fault.kind)

    def end(self) -> None:
        """Nothing new goes wrong; the clock is right again."""
        self._over = True
        self.world.time.wall_offset_ms = 0

    def _act(self, kind: str) -> None:
        if not self._over:
            self.world.trace("nemesis", kind)
            self._acts[kind]()

    def _later(self, ms: float, act: Callable[[], None]) -> None:
        self.world.time.call_later(ms / 1_000, act)

    # The broker and its disk

    def _death(self, death: str) -> None:
        if self.world.host.service is not None:
            self.world.host.die_soon(death, self.rng.randint(1, 40))

    def _slow_disk(self) -> None:
        self.world.host.slow_until_ms = self.world.time.now_ms + self.rng.randint(500, 5_000)

    def _disk_error(self) -> None:
        kind = self.rng.choice(("datasync", "datasync", "write", "read", "sync_dir", "create", "rename"))
        path = self.rng.choice(PATHS)
        self.world.trace("nemesis", f"EIO: the next {kind} of *{path}*")
        self.world.host.disk.fail(kind, path_part=path, nth=self.rng.randint(1, 3))

    def _short_write(self) -> None:
        self.world.host.disk.shorten_write(nth=self.rng.randint(1, 5), to_bytes=self.rng.randint(0, 100))

    def _disk_full(self) -> None:
        disk = self.world.host.disk
        disk.fail("write", path_part=self.rng.choice(("/orders-", "")), error=errno.ENOSPC, forever=True)
        self._later(self.rng.randint(200, 4_000), lambda: self.world.host.disk.heal())

    def _wall_clock(self) -> None:
        jump_ms = self.rng.choice((-3_600_000, -30_000, -2_000, 2_000, 600_000))
        self.world.trace("nemesis", f"the wall clock jumps by {jump_ms} ms")
        self.world.time.wall_offset_ms += jump_ms

    # The network and the clients

    def _client(self) -> SimulatedTransport:
        world = self.world
        transports = [producer.transport for producer in world.producers.values()]
        transports += [member.transport for member in world.members.values()]
        return self.rng.choice(transports)

    def _reset_connection(self) -> None:
        self.world.network.reset(self._client().name)

    def _cut(self, ways: frozenset[str]) -> None:
        network, client = self.world.network, self._client().name
        self.world.trace("nemesis", f"{client}: nothing passes {' and '.join(sorted(ways))}")
        network.cut(client, ways)
        self._later(self.rng.choice((300, 1_500, 5_000, 9_000)), lambda: network.heal(client))

    def _freeze(self) -> None:
        transport, ms = self._client(), self.rng.choice((200, 1_500, 4_500, 9_000))
        self.world.trace("nemesis", f"{transport.name} is stopped for {ms} ms")
        transport.freeze(ms)

    def _kill_client(self) -> None:
        world = self.world
        if self.rng.random() < 0.3:
            number = self.rng.randrange(world.plan.producers)
            world.trace("nemesis", f"kills producer {number}")
            world.end_producer(number)
            return
        (group, number), member = self.rng.choice(list(world.members.items()))
        if not member.ended:
            world.trace("nemesis", f"kills {member.name}")
            member.kill()
            world.return_later(group, number, member.style)

    def _replace_member(self) -> None:
        """One leaves in good order and another takes its place."""
        (group, number), member = self.rng.choice(list(self.world.members.items()))
        if not member.ended:
            member.stop()
            self._later(self.rng.randint(10, 3_000), lambda: self.world.return_later(group, number, member.style))

    # The operator

    def _trim(self) -> None:
        world = self.world
        partition = self.rng.randrange(world.plan.partitions)
        service = world.host.service
        if service is None or self.rng.random() < 0.2:
            return
        log = service.logs.topics[TOPIC].partitions[partition]
        offset = self.rng.randint(log.start_offset, log.high_watermark)
        world.trace("operator", f"trims {partition} to {offset}")
        world.ledger.trimmed[partition] = max(world.ledger.trimmed.get(partition, 0), offset)
        world.operator.submit(TrimTopic(TOPIC, partition, offset), TrimTopicReply)

    def _redrive(self) -> None:
        world, group = self.world, GROUPS[0]
        world.ledger.redrives[group] = world.ledger.redrives.get(group, 0) + 1
        token = f"{self.rng.getrandbits(64):x}"
        request = StartRedrive(group, TOPIC, rate_per_s=self.rng.choice((0, 3)), token=token)
        world.operator.submit(request, StartRedriveReply)

    def _reset_group(self) -> None:
        """The members of the second group leave, the group is reset, they come back."""
        world, group = self.world, GROUPS[1]
        if group in world.absent:
            return
        world.absent.add(group)
        for (name, _), member in list(world.members.items()):
            if name == group and not member.ended:
                member.stop()
        to = self.rng.choice((EARLIEST_OFFSET, BY_SHIFT))
        self._later(AWAY_MS, lambda: self._reset_now(group, to, -self.rng.randint(1, 8)))

    def _reset_now(self, group: str, to: str, shift: int) -> None:
        world = self.world
        if group not in world.absent:
            return  # It is calm meanwhile, and they are back.
        world.trace("operator", f"resets {group} to {to} {shift}")
        for partition in range(world.plan.partitions):
            world.ledger.reset(group, partition, 0)

        def done(answer) -> None:  # type: ignore[no-untyped-def]
            error = answer.exception()
            world.trace("operator", f"reset of {group}: {error or 'done'}")
            assert error is None or isinstance(error, LogsvcError), error
            world.come_back(group)

        request = ResetGroup(group, to, shift if to == BY_SHIFT else 0, TOPIC)
        world.operator.submit(request, ResetGroupReply, 5_000).add_done_callback(done)
