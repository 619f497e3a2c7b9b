"""The broker's ZeroMQ side: one ROUTER socket on the event loop.

Reading. The socket's file descriptor is edge-triggered and fires for reading and writing alike (zmq_getsockopt(3),
ZMQ_FD): after every wake-up, and after every send, the socket is drained until it has nothing more; a long drain gives
the loop a turn in between. While the broker is saturated nothing is read, and TCP pushes back on the peers.

Writing. A default ROUTER drops answers silently when a peer is slow. Here ROUTER_MANDATORY makes that an error, every
send is DONTWAIT, and what a slow peer does not take waits in a queue of its own, bounded in bytes. The buffers of large
answers stay referenced inside libzmq until they are on the wire, so they count too, by their trackers. A peer over the
bound is cut off: ZeroMQ cannot close one peer's connection, so its answers are thrown away until it comes back with a
fresh routing id, which our clients do when answers stay out. What libzmq still holds for it goes on counting, until the
system closes a connection that has taken nothing for STALLED_MS (TCP_USER_TIMEOUT in tcp(7)).

A second bound holds for all peers together. Where it would be passed, those with most in their queues are cut off first. It
is not what keeps large answers in check: `held_bytes` tells the broker to make them smaller long before.

What ZeroMQ leaves open: a message without an end (endless multipart) is held by libzmq until its peer goes, and something
that is not ZeroMQ (an HTTP request, say) keeps its descriptor until it hangs up.

A routing id is only an address, random, never an identity.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import zmq

from logsvc_common.batch import Buffer
from logsvc_common.errors import AddressInUse, StartError

logger = logging.getLogger(__name__)

DRAIN_MESSAGES = 64  # messages handled before the loop gets a turn
RECEIVE_QUEUE_MESSAGES = 8  # per peer, inside libzmq; beyond it TCP pushes back
SEND_QUEUE_MESSAGES = 1_000  # per peer, inside libzmq; small answers only, see TRACKED_BYTES
TRACKED_BYTES = 64 << 10  # answers at least this large are counted until they are on the wire
HANDSHAKE_MS = 2_000
HEARTBEAT_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 30_000  # libzmq hears whole messages only: on a slow link a batch is silence until its last byte
STALLED_MS = 30_000  # a peer that takes nothing for so long, though something is there for it, is disconnected
RETRY_SECONDS = 0.005  # how soon a full peer is tried again
LOST_RETRY_SECONDS = 0.25  # how soon it is looked again whether libzmq still holds what was for peers that are gone
CUT_OFF_REMEMBERED = 10_000

LIBZMQ_MIN = (4, 3, 3)  # earlier ones can be crashed or made to run code by a peer (CVE-2020-15166, CVE-2021-20235)


class _Peer:
    """What waits for one slow peer. Peers that keep up have no entry."""

    __slots__ = ("queue", "queued_bytes", "tracked", "tracked_bytes")

    def __init__(self) -> None:
        self.queue: deque[tuple[list[Buffer], int]] = deque()
        self.queued_bytes = 0
        self.tracked: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.tracked_bytes = 0

    def settle(self) -> int:
        """Forget the large answers that libzmq has put on the wire. Returns how many bytes they were."""
        before = self.tracked_bytes
        while self.tracked and self.tracked[0][0].done:
            self.tracked_bytes -= self.tracked.popleft()[1]
        return before - self.tracked_bytes


class ZmqRouter:
    """`receive(peer, frames)` is called for every message; `saturated()` says to stop reading for a while."""

    def __init__(
        self,
        bind: str,
        receive: Callable[[bytes, Sequence[Buffer]], None],
        saturated: Callable[[], bool],
        *,
        frame_bytes_max: int,
        peer_queue_bytes_max: int,
        queue_bytes_max: int,
    ) -> None:
        if zmq.zmq_version_info() < LIBZMQ_MIN:
            raise StartError(f"libzmq {zmq.zmq_version()} has known holes; install pyzmq >= 27, which brings a newer one")
        self._receive = receive
        self._saturated = saturated
        self._peer_bytes_max = peer_queue_bytes_max
        self._bytes_max = queue_bytes_max
        self._peers: dict[bytes, _Peer] = {}
        self.held_bytes = 0  # of answers that wait for peers, here and, where they are large, inside libzmq
        self._lost: list[tuple[zmq.MessageTracker, int]] = []  # what libzmq holds for peers that are forgotten here
        self._lost_due = 0.0
        self._cut_off: OrderedDict[bytes, None] = OrderedDict()
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._drain_scheduled = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._configure(frame_bytes_max)
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            if error.errno == zmq.EADDRINUSE:
                raise AddressInUse(f"{bind} is in use; stop what listens there or choose another port with --bind") from error
            raise StartError(f"cannot listen on {bind}: {error}") from error
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _configure(self, frame_bytes_max: int) -> None:
        socket = self._socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE_MESSAGES)
        socket.setsockopt(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes_max)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        socket.setsockopt(zmq.TCP_MAXRT, STALLED_MS)
        socket.setsockopt(zmq.BACKLOG, 1_024)

    # Reading

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(int(self._socket.getsockopt(zmq.FD)), self._drain)
        self._drain()

    def resume(self) -> None:
        """The broker is no longer saturated."""
        if self._paused:
            self._paused = False
            self._schedule_drain()

    def stop_reading(self) -> None:
        """Take no more requests; answers still go out."""
        self._paused = True

    def _schedule_drain(self) -> None:
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._scheduled_drain)

    def _scheduled_drain(self) -> None:
        self._drain_scheduled = False
        self._drain()

    def _drain(self) -> None:
        receive = self._socket.recv_multipart
        for _ in range(DRAIN_MESSAGES):
            if self._paused:
                return
            if self._saturated():
                self._paused = True
                return
            try:
                frames = receive(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            except zmq.ZMQError:
                if self._socket.closed:
                    return
                raise
            peer = frames[0].bytes
            if peer not in self._cut_off:
                self._receive(peer, [frame.buffer for frame in frames[1:]])
        self._schedule_drain()

    # Writing

    def send(self, peer: bytes, frames: list[Buffer]) -> None:
        """Send `frames` to `peer`, now or when it takes them; drop them when it is gone. Never blocks or raises."""
        if self._socket.closed or peer in self._cut_off:
            return
        size = sum(len(frame) for frame in frames)
        state = self._peers.get(peer)
        if state is None and size < TRACKED_BYTES:
            if self._try_send(peer, frames):
                self._after_send()
                return
            state = self._peers[peer] = _Peer()
        elif state is None:
            state = self._peers[peer] = _Peer()
        self.held_bytes -= state.settle()
        if not self._make_room(size):
            self._cut(peer)
        elif peer in self._cut_off:
            pass  # it was the one to make room
        elif state.queue or not self._fits(state, size) or not self._send_tracked(peer, state, frames, size):
            self._enqueue(peer, state, frames, size)
        self._after_send()

    def _make_room(self, size: int) -> bool:
        """Cut off peers, those with most in their queues first, until so much fits; False when it does not."""
        while self.held_bytes and self.held_bytes + size > self._bytes_max:
            slowest = max(self._peers, key=lambda peer: self._peers[peer].queued_bytes, default=None)
            if slowest is None or not self._peers[slowest].queued_bytes:
                return False  # all of it is libzmq's
            self._cut(slowest)
        return True

    def _fits(self, state: _Peer, size: int) -> bool:
        # A single answer over the bound must still be able to leave.
        return not state.tracked_bytes or state.tracked_bytes + size <= self._peer_bytes_max // 2

    def _try_send(self, peer: bytes, frames: list[Buffer]) -> bool:
        """False when the peer's queue in libzmq is full. A peer that is gone counts as sent: nobody waits."""
        try:
            self._socket.send_multipart([peer, *frames], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            self._gone(peer, error)
        return True

    def _send_tracked(self, peer: bytes, state: _Peer, frames: list[Buffer], size: int) -> bool:
        if size < TRACKED_BYTES:
            return self._try_send(peer, frames)
        # Answers leave in order, so the largest frame being done tells closely enough that the answer is.
        largest = max(range(len(frames)), key=lambda place: len(frames[place]))
        tracked = zmq.Frame(frames[largest], track=True, copy=False)
        try:
            self._socket.send_multipart([peer, *frames[:largest], tracked, *frames[largest + 1 :]], zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            self._gone(peer, error)
            return True
        assert isinstance(tracked.tracker, zmq.MessageTracker)
        state.tracked.append((tracked.tracker, size))
        state.tracked_bytes += size
        self.held_bytes += size
        self._schedule_flush()
        return True

    def _gone(self, peer: bytes, error: zmq.ZMQError) -> None:
        if error.errno != zmq.EHOSTUNREACH:
            logger.warning("sending to a peer failed: %s", error)
        self._forget(peer)

    def _forget(self, peer: bytes) -> int:
        """Drop what waits for a peer. Returns how many bytes that was, here and inside libzmq."""
        state = self._peers.pop(peer, None)
        if state is None:
            return 0
        self.held_bytes -= state.queued_bytes
        if state.tracked:
            self._lost.extend(state.tracked)
            self._schedule_flush()
        return state.queued_bytes + state.tracked_bytes

    def _cut(self, peer: bytes) -> None:
        waited = self._forget(peer)
        logger.warning("a peer does not take its answers (%d bytes wait); it is cut off", waited)
        self._cut_off[peer] = None
        if len(self._cut_off) > CUT_OFF_REMEMBERED:
            self._cut_off.popitem(last=False)

    def _enqueue(self, peer: bytes, state: _Peer, frames: list[Buffer], size: int) -> None:
        if peer not in self._peers:  # it was gone by now
            return
        if state.queued_bytes + size > self._peer_bytes_max and state.queue:
            self._cut(peer)
            return
        state.queue.append((frames, size))
        state.queued_bytes += size
        self.held_bytes += size
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(RETRY_SECONDS if self._peers else LOST_RETRY_SECONDS, self._flush)

    def _settle_lost(self) -> None:
        if self._lost and self._loop.time() >= self._lost_due:
            self._lost_due = self._loop.time() + LOST_RETRY_SECONDS
            left = [(tracker, size) for tracker, size in self._lost if not tracker.done]
            self.held_bytes -= sum(size for _, size in self._lost) - sum(size for _, size in left)
            self._lost = left

    def _flush(self) -> None:
        self._flush_timer = None
        if self._socket.closed:
            return
        self._settle_lost()
        for peer, state in list(self._peers.items()):
            self.held_bytes -= state.settle()
            while state.queue:
                frames, size = state.queue[0]
                if not self._fits(state, size) or not self._send_tracked(peer, state, frames, size):
                    break
                if peer not in self._peers:
                    break  # it was gone by now
                state.queue.popleft()
                state.queued_bytes -= size
                self.held_bytes -= size
            if not state.queue and not state.tracked:
                self._peers.pop(peer, None)
        if self._peers or self._lost:
            self._schedule_flush()
        self._after_send()

    def _after_send(self) -> None:
        # A send may swallow the edge of a message that came meanwhile.
        if not self._paused and not self._drain_scheduled and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._schedule_drain()

    def stop(self, linger_ms: int = 1_000) -> None:
        """Close, giving answers on their way up to `linger_ms`."""
        if self._socket.closed:
            return
        self._paused = True
        self._loop.remove_reader(int(self._socket.getsockopt(zmq.FD)))
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._socket.close(linger=linger_ms)
        self._context.term()
