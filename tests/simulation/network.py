"""The network between clients and the broker, in a simulation: ZeroMQ over TCP, as far as it shows.

What is kept of the real thing. Within one connection messages keep their order, none is lost and none comes twice; a packet
that is lost costs time, because TCP sends it again. A message is lost when its connection breaks: then a prefix of what was on
its way in each direction may still arrive, *late*, because it lies in the other side's buffers. So a request of an old
connection may reach the broker after requests of the new one (reordered across connections), and a client that asks again
because the answer was lost makes the broker see a request twice (duplicated). A connection breaks when

    the broker dies            the client's socket monitor tells it at once
    the network resets it      likewise; the broker notices nothing
    it is cut for too long     ZMTP heartbeats give up after `HEARTBEAT_TIMEOUT_MS`; the broker notices nothing
    the client gives it up     a request's deadline has passed

A new connection waits until the broker is there and not cut off, and so does what is sent on it meanwhile. A cut may be of both
directions or of one: the broker hears a client whom it cannot answer, or the other way round.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from logsvc_common.batch import Buffer
from tests.simulation.service import SimulatedTime

HEARTBEAT_TIMEOUT_MS = (2_000, 3_000)  # an interval of 1 s and a timeout of 2 s: noticed somewhere in between
RECONNECT_MS = (1, 40)
LATE_MS_MAX = 3_000  # how late what an old connection had on its way may arrive
SLOW_SHARE = 0.02  # of messages, that lose a packet
SLOW_MS = (20, 900)

Frames = list[bytes]
TO_BROKER, TO_CLIENT = "to broker", "to client"


class Pipe:
    """One direction of a connection: first in, first out."""

    def __init__(self, network: "Network", link: "Link", way: str) -> None:
        self._network, self._link, self.way = network, link, way
        self._queue: deque[tuple[float, Frames]] = deque()
        self._last_ms = 0.0
        self._scheduled = False

    def put(self, frames: Frames) -> None:
        arrives_ms = max(self._last_ms, self._network.time.now_ms + self._network.latency_ms())
        self._last_ms = arrives_ms
        self._queue.append((arrives_ms, frames))
        self.pump()

    def cut_short(self, *, late: bool) -> None:
        """The connection broke: keep a prefix, to arrive late, or nothing."""
        kept = self._network.rng.randint(0, len(self._queue)) if late else 0
        while len(self._queue) > kept:
            self._queue.pop()
        delay_ms = self._network.rng.random() ** 3 * LATE_MS_MAX
        self._queue = deque((arrives_ms + delay_ms, frames) for arrives_ms, frames in self._queue)

    def pump(self) -> None:
        """See to it that what is first in the queue arrives in time."""
        if self._queue and not self._scheduled and self._network.flows(self._link, self.way):
            self._scheduled = True
            wait_ms = max(0.0, self._queue[0][0] - self._network.time.now_ms)
            self._network.time.call_later(wait_ms / 1_000, self._arrive)

    def _arrive(self) -> None:
        self._scheduled = False
        if not self._queue or not self._network.flows(self._link, self.way):
            return
        if self._queue[0][0] > self._network.time.now_ms + 0.5:
            self.pump()
            return
        _, frames = self._queue.popleft()
        self.pump()
        self._network.arrived(self._link, self.way, frames)


class Link:
    """One connection of one client, from `connect` until it breaks."""

    def __init__(self, network: "Network", client: str, peer: bytes, deliver: "Deliver", broken: "Broken") -> None:
        self._network = network
        self.client, self.peer, self.deliver, self.broken = client, peer, deliver, broken
        self.life = -1  # of the broker it is connected to; -1 before that
        self.open = True  # until it breaks
        self.pipes = {TO_BROKER: Pipe(network, self, TO_BROKER), TO_CLIENT: Pipe(network, self, TO_CLIENT)}

    def send(self, frames: Sequence[Buffer]) -> None:
        """From the client."""
        if self.open:
            self.pipes[TO_BROKER].put([bytes(frame) for frame in frames])

    def close(self) -> None:
        """The client gives it up, or dies."""
        self._network.drop(self, tell=False)


Deliver = Callable[[Frames], None]
Broken = Callable[[str], None]
Trace = Callable[[str, str], None]


class Network:
    """All connections to one broker. `receive` is how messages enter the broker that lives now."""

    def __init__(self, time: SimulatedTime, rng: Random, trace: Trace) -> None:
        self.time, self.rng, self.trace = time, rng, trace
        self.receive: Callable[[bytes, Frames], None] | None = None
        self.life = -1  # counts the broker's lives; the one now, while `receive` is set
        self.calm = False  # no packets are lost any more
        self._links: dict[bytes, Link] = {}
        self._old: list[Link] = []  # broken, with something still on its way to the broker
        self._cut: dict[str, frozenset[str]] = {}  # by client: the directions that are cut
        self._connections = 0

    # What clients do

    def connect(self, client: str, deliver: Deliver, broken: Broken) -> Link:
        self._connections += 1
        link = Link(self, client, b"%s/%d" % (client.encode(), self._connections), deliver, broken)
        self._links[link.peer] = link
        self._establish_later(link)
        return link

    def _establish_later(self, link: Link) -> None:
        self.time.call_later(self.rng.uniform(*RECONNECT_MS) / 1_000, self._establish, link)

    def _establish(self, link: Link) -> None:
        if link.open and link.life < 0 and self.receive is not None and not self._cut.get(link.client):
            link.life = self.life
            link.pipes[TO_BROKER].pump()

    # What the broker does

    def answer(self, peer: bytes, frames: Sequence[Buffer]) -> None:
        """From the broker; what is for a peer that is gone is dropped, as ROUTER_MANDATORY would tell."""
        link = self._links.get(peer)
        if link is not None:
            link.pipes[TO_CLIENT].put([bytes(frame) for frame in frames])

    def broker_up(self, receive: Callable[[bytes, Frames], None]) -> None:
        self.life += 1
        self.receive = receive
        for link in list(self._links.values()):
            self._establish_later(link)

    def broker_down(self) -> None:
        """Every connection to it breaks; nothing of what was on its way to it arrives."""
        self.receive = None
        self._old.clear()
        for link in list(self._links.values()):
            if link.life >= 0:
                self.drop(link, tell=True)

    # What goes wrong

    def reset(self, client: str) -> None:
        """The client's connection breaks."""
        for link in list(self._links.values()):
            if link.client == client and link.life >= 0:
                self.drop(link, tell=True)

    def cut(self, client: str, ways: frozenset[str]) -> None:
        """Nothing passes these ways until `heal`. A connection that stands is given up when heartbeats fail."""
        self._cut[client] = ways
        for link in self._links.values():
            if link.client == client and link.life >= 0:
                self.time.call_later(self.rng.uniform(*HEARTBEAT_TIMEOUT_MS) / 1_000, self._heartbeats_failed, link)

    def _heartbeats_failed(self, link: Link) -> None:
        if link.open and self._cut.get(link.client):
            self.drop(link, tell=True)

    def heal(self, client: str) -> None:
        self._cut.pop(client, None)
        for link in [*self._links.values(), *self._old]:
            if link.client == client:
                for pipe in link.pipes.values():
                    pipe.pump()
                if link.life < 0:
                    self._establish_later(link)

    def heal_all(self) -> None:
        for client in list(self._cut):
            self.heal(client)

    def drop(self, link: Link, *, tell: bool) -> None:
        """A connection is over."""
        if not link.open:
            return
        link.open = False
        del self._links[link.peer]
        late = link.life >= 0 and self.receive is not None
        link.pipes[TO_CLIENT].cut_short(late=False)
        link.pipes[TO_BROKER].cut_short(late=late)
        if late:
            self._old.append(link)
        if tell:
            self.time.call_later(self.rng.random() / 1_000, link.broken, f"the connection of {link.client} broke")

    # For pipes

    def latency_ms(self) -> float:
        if not self.calm and self.rng.random() < SLOW_SHARE:
            return self.rng.uniform(*SLOW_MS)
        return 0.05 + self.rng.random() * 0.4

    def flows(self, link: Link, way: str) -> bool:
        """Whether messages of a connection pass in this direction now."""
        if way in self._cut.get(link.client, ()) or link.life < 0 or link.life != self.life or self.receive is None:
            return False
        return link.open or way == TO_BROKER

    def arrived(self, link: Link, way: str, frames: Frames) -> None:
        size = sum(map(len, frames))
        self.trace(link.client, f"{way}{'' if link.open else ', late'}: {len(frames)} frames, {size} bytes")
        if way == TO_CLIENT:
            link.deliver(frames)
        else:
            assert self.receive is not None
            self.receive(link.peer, frames)
