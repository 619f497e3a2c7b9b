"""The thin shell: one thread, one DEALER socket, and the services that live on it. The only module that imports zmq.

A client owns one `Transport`. Its thread is the only one that touches the socket. Other threads leave work with `post`
and wake it through a pipe; services (the producer's sender, the consumer's engine, single calls) are stepped whenever
something arrived or a time they named has come, decide with pure machines, and send.

    user thread --post--> deque, pipe --> [ I/O thread: step services -> poll -> receive ] <--> DEALER

A dead peer is noticed by ZMTP heartbeats (how soon, `connection` says), a broken one by the socket monitor at once, and
a stuck one by the deadline of a request; each ends in `Connection.broken` and a fresh socket.
"""

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import zmq
from zmq.utils.monitor import recv_monitor_message

from logsvc_client.connection import REQUESTS_IN_FLIGHT_MAX, Connection, Phase, Reply
from logsvc_common.batch import Buffer
from logsvc_common.errors import (
    ClientClosed,
    Disconnected,
    InvalidConfig,
    InvalidRequest,
    LogsvcError,
    RequestTimeout,
)
from logsvc_common.messages import Hello, Message, Request

log = logging.getLogger(__name__)

DEFAULT_SERVER = "tcp://127.0.0.1:9292"
DEFAULT_REQUEST_TIMEOUT_MS = 30_000
DEFAULT_CALL_TIMEOUT_MS = 30_000
HEARTBEAT_INTERVAL_MS = 1_000
ZMQ_RECONNECT_MS = 20
ZMQ_RECONNECT_MAX_MS = 500
FRAME_BYTES_MAX = 80 << 20
RECEIVE_BURST = 256  # messages taken before the services are stepped again
IDLE_MS = 60_000
CALL_RETRY_MIN_MS = 20
CALL_RETRY_MAX_MS = 1_000
CALLS_WAITING_MAX = 10_000

SOFTWARE = "logsvc-python/0.1.0"

ResponseT = TypeVar("ResponseT", bound=Message)


def monotonic_ms() -> int:
    """The clock of every deadline in the client library."""
    return time.monotonic_ns() // 1_000_000


class Service(Protocol):
    """Something that lives on the I/O thread."""

    def step(self, now_ms: int) -> int:
        """Do what is due. Returns when to be called again at the latest, in monotonic milliseconds."""

    def stopped(self, error: LogsvcError) -> None:
        """The thread has ended: whoever still waits is told `error`."""


class Transport:
    """A connection to a broker that mends itself, and the thread that serves it."""

    def __init__(self, server: str, *, client_id: str = "", request_timeout_ms: int = DEFAULT_REQUEST_TIMEOUT_MS) -> None:
        if not server.startswith(("tcp://", "ipc://")):
            raise InvalidConfig(f"server is {server!r}; it looks like tcp://HOST:PORT")
        self.server = server
        self.connection = Connection(Hello(client_id=client_id, software=SOFTWARE), request_timeout_ms)
        self.request_timeout_ms = request_timeout_ms
        self._calls = Calls(self)
        self._services: list[Service] = [self._calls]
        self._posted: deque[Callable[[], None]] = deque()
        self._sleeping = False
        self._woken = False
        self._stopping = False
        self._failure: LogsvcError | None = None
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, zmq.POLLIN)
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"logsvc-io-{client_id or server}", daemon=True)

    @staticmethod
    def now_ms() -> int:
        """The clock of all deadlines, in monotonic milliseconds."""
        return monotonic_ms()

    # For other threads

    def start(self, *services: Service) -> None:
        """Begin; `services` are stepped by the I/O thread from now on."""
        self._services.extend(services)
        self._thread.start()

    def post(self, work: Callable[[], None]) -> None:
        """Have the I/O thread run `work`. Raises ClientClosed after the end."""
        if self._stopping or self._failure is not None:
            raise self.failure()
        self._posted.append(work)
        self.wake()

    def wake(self) -> None:
        """Have the I/O thread step its services soon. Cheap when it is awake already."""
        self._woken = True  # Before looking at `_sleeping`: the thread sets that first and looks at this after.
        if self._sleeping:
            self._sleeping = False
            try:
                os.write(self._wake_write, b"w")
            except BlockingIOError:
                pass  # The pipe is full of wake-ups not read yet.

    def failure(self) -> LogsvcError:
        """Why nothing can be sent any more."""
        return self._failure or ClientClosed("this client is closed")

    def submit(
        self, body: Request, expected: type[ResponseT], timeout_ms: int = DEFAULT_CALL_TIMEOUT_MS
    ) -> "Future[ResponseT]":
        """Send one request, again after errors that are worth it, until `timeout_ms` have passed.

        The future ends in the answer, the broker's error, or RequestTimeout.
        """
        call = Call(body, monotonic_ms() + timeout_ms, timeout_ms)
        call.future.set_running_or_notify_cancel()  # It ends when the call does, whoever stops waiting for it.
        self.post(lambda: self._calls.add(call))
        return call.future

    def call(self, body: Request, expected: type[ResponseT], timeout_ms: int = DEFAULT_CALL_TIMEOUT_MS) -> ResponseT:
        """As `submit`, and wait for the answer."""
        return self.submit(body, expected, timeout_ms).result()

    def stop(self) -> None:
        """End the thread and close the socket. Whoever still waits gets ClientClosed. Safe to call twice."""
        self._stopping = True
        with self._closing:
            if self._wake_write < 0:
                return
            if self._thread.is_alive():
                self.wake()
                self._thread.join()
            elif self._failure is None:
                self._finish(self.failure())  # It was never started.
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    # For the I/O thread

    @property
    def ready(self) -> bool:
        """True while requests can be sent."""
        return self.connection.phase is Phase.READY

    def send(self, body: Request, payload: Sequence[Buffer], reply: Reply, timeout_ms: int | None = None) -> None:
        """Send one request now; `reply` is called once, perhaps before this returns, with Disconnected."""
        frames = self.connection.request(body, payload, reply, monotonic_ms(), timeout_ms)
        if frames is not None:
            self._send_frames(frames)

    def _send_frames(self, frames: list[Buffer]) -> None:
        assert self._socket is not None
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            self._break(f"sending failed: {error}")

    def _run(self) -> None:
        error: LogsvcError = ClientClosed("this client is closed")
        try:
            while not self._stopping:
                self._wait(self._step())
        except Exception as bug:
            # A bug must not leave callers hanging: they are told, and the traceback is kept.
            log.exception("the I/O thread of a logsvc client failed")
            error = ClientClosed(f"the client's I/O thread failed: {type(bug).__name__}: {bug}")
            error.__cause__ = bug
        self._finish(error)

    def _step(self) -> int:
        self._woken = False
        while self._posted:
            self._posted.popleft()()
        now_ms = monotonic_ms()
        connection = self.connection
        if connection.phase is Phase.WAITING:
            if now_ms >= connection.retry_at_ms:
                self._open(now_ms)
        elif (why := connection.overdue(now_ms)) is not None:
            self._break(why)
        due_ms = now_ms + IDLE_MS
        for service in self._services:
            due_ms = min(due_ms, service.step(now_ms))
        return min(due_ms, connection.next_deadline_ms())

    def _wait(self, due_ms: int) -> None:
        self._sleeping = True
        timeout_ms = 0 if self._woken or self._stopping else max(0, due_ms - monotonic_ms())
        ready = self._poller.poll(timeout_ms)
        self._sleeping = False
        for source, _event in ready:
            if source == self._wake_read:
                self._drain_wakeups()
            elif source is self._monitor:
                self._drain_monitor()
            elif source is self._socket:
                self._receive()

    def _drain_wakeups(self) -> None:
        try:
            os.read(self._wake_read, 4_096)
        except BlockingIOError:
            pass  # Another round has read them.

    def _receive(self) -> None:
        for _ in range(RECEIVE_BURST):
            socket = self._socket
            if socket is None:
                return
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                self._break(f"receiving failed: {error}")
                return
            try:
                self.connection.received([frame.buffer for frame in frames])
            except InvalidRequest as error:
                self._break(f"the peer does not speak this protocol: {error}")
                return

    def _drain_monitor(self) -> None:
        monitor = self._monitor
        while monitor is not None:
            try:
                event = recv_monitor_message(monitor, zmq.DONTWAIT)
            except zmq.Again:
                return
            if event["event"] == zmq.EVENT_DISCONNECTED:
                self._break(f"the connection to {self.server} broke")
                return

    def _open(self, now_ms: int) -> None:
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = 2 * REQUESTS_IN_FLIGHT_MAX
            socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
            socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
            socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, self.connection.heartbeat_timeout_ms)
            socket.setsockopt(zmq.RECONNECT_IVL, ZMQ_RECONNECT_MS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, ZMQ_RECONNECT_MAX_MS)
            self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            socket.connect(self.server)
        except zmq.ZMQError as error:
            self._socket = socket
            self._break(f"cannot connect to {self.server}: {error}")
            return
        self._socket = socket
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._send_frames(self.connection.opened(now_ms))

    def _break(self, why: str) -> None:
        if self.connection.phase is Phase.READY and not self._stopping:
            log.info("%s; connecting again", why)
        self._close_socket()
        self._woken = True  # The services have requests to think about again.
        self.connection.broken(why, monotonic_ms(), random.random())

    def _close_socket(self) -> None:
        socket, self._socket = self._socket, None
        monitor, self._monitor = self._monitor, None
        if socket is None:
            return
        if socket in self._poller:
            self._poller.unregister(socket)
        if monitor is not None:
            if monitor in self._poller:
                self._poller.unregister(monitor)
            socket.disable_monitor()
        socket.close(0)

    def _finish(self, error: LogsvcError) -> None:
        self._failure = error
        self._stopping = True
        self._close_socket()
        while self._posted:
            self._posted.popleft()()  # A call that came too late still enters the list, to be told below.
        self.connection.broken("the client is closed", monotonic_ms(), 0.0)
        for service in self._services:
            service.stopped(error)
        self._context.term()


class Call:
    """One request whose sender waits for the answer."""

    __slots__ = ("body", "deadline_ms", "due_ms", "future", "in_flight", "last_error", "timeout_ms", "tries")

    def __init__(self, body: Request, deadline_ms: int, timeout_ms: int) -> None:
        self.body = body
        self.deadline_ms = deadline_ms
        self.timeout_ms = timeout_ms
        self.due_ms = 0
        self.tries = 0
        self.in_flight = False
        self.last_error: LogsvcError | None = None
        self.future: Future[Any] = Future()


class Calls:
    """The service for single requests: each is sent, and sent again after errors that can be retried, until its deadline."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._open: list[Call] = []

    def add(self, call: Call) -> None:
        if len(self._open) >= CALLS_WAITING_MAX:
            call.future.set_exception(RequestTimeout(f"{CALLS_WAITING_MAX} calls are waiting for {self._transport.server}"))
            return
        self._open.append(call)

    def step(self, now_ms: int) -> int:
        due_ms = now_ms + IDLE_MS
        for call in list(self._open):
            if now_ms >= call.deadline_ms:
                self._end(call, self._too_late(call))
                continue
            if not call.in_flight and self._transport.ready and now_ms >= call.due_ms:
                self._try(call, now_ms)
            due_ms = min(due_ms, call.deadline_ms, call.due_ms if call.due_ms > now_ms else due_ms)
        return due_ms

    def stopped(self, error: LogsvcError) -> None:
        for call in list(self._open):
            self._end(call, error)

    def _try(self, call: Call, now_ms: int) -> None:
        call.in_flight = True
        call.tries += 1
        backoff_ms = min(CALL_RETRY_MAX_MS, CALL_RETRY_MIN_MS * 2 ** min(call.tries - 1, 16))
        call.due_ms = now_ms + backoff_ms

        def reply(answer: Message | LogsvcError, _payload: Sequence[Buffer]) -> None:
            call.in_flight = False
            waited_ms = monotonic_ms() - call.deadline_ms + call.timeout_ms
            if isinstance(answer, LogsvcError) and answer.worth_retrying(waited_ms):
                call.last_error = answer
            else:
                self._end(call, answer)

        self._transport.send(call.body, (), reply)

    def _end(self, call: Call, outcome: Message | LogsvcError) -> None:
        if call in self._open:
            self._open.remove(call)
        if call.future.done():
            return
        if isinstance(outcome, LogsvcError):
            call.future.set_exception(outcome)
        else:
            call.future.set_result(outcome)

    def _too_late(self, call: Call) -> RequestTimeout:
        return unreachable(self._transport, type(call.body).__name__, call.timeout_ms, call.last_error)


def unreachable(transport: Transport, what: str, timeout_ms: int, last_error: LogsvcError | None = None) -> RequestTimeout:
    """The error for a broker that did not answer, saying where it was looked for and what to check."""
    if transport.ready:
        state = "the connection stands, the broker does not answer"
    else:
        state = f"is a broker running there, and is the address right? ({transport.connection.failure})"
    last = f"; last error: {last_error}" if last_error is not None and not isinstance(last_error, Disconnected) else ""
    return RequestTimeout(f"{what}: no answer from {transport.server} within {timeout_ms} ms; {state}{last}")
