"""Brokers that start in a few milliseconds: forked from a process that has imported everything and done nothing else.

Most of what a kill cycle takes is the interpreter reading modules. The nursery reads them once and forks for each start, so
a run has several times the kills. What the child runs is `logsvc serve` itself, from its command line on; it has a pid, a
stdout and a log of its own, and dies like any other.

    test ---(command line; stdout and stderr as descriptors)---> nursery ---fork---> logsvc serve
         <--(pid; pidfd as a descriptor)-------------------------

The nursery starts no thread and opens no ZeroMQ context, so nothing that does not survive a fork is there when it forks.
Lines of Python given as `mutant` run in every child first: a broker with one promise broken.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from logsvc.testing.process import BrokerProcess

REQUEST_BYTES_MAX = 64 << 10
ANSWER_TIMEOUT_S = 30.0


class ForkedProcess:
    """A child of the nursery, with as much of `subprocess.Popen` as BrokerProcess uses."""

    def __init__(self, pid: int, pidfd: int, stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdout = stdout
        self._pidfd = pidfd

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Until it has ended. Only the nursery, its parent, learns the exit code: this is 0 always."""
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("logsvc serve", timeout)
        os.close(self._pidfd)
        return 0


class ForkedBroker(BrokerProcess):
    """A broker process that the nursery starts."""

    def __init__(self, nursery: "Nursery", data_dir: Path, log_path: Path, arguments: tuple[str, ...] = ()) -> None:
        super().__init__(data_dir, log_path, arguments)
        self._nursery = nursery

    def _launch(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        return self._nursery.fork(arguments, self.log_path)  # type: ignore[return-value]


class Nursery:
    """The process that forks brokers; made by `nursery`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fork(self, arguments: list[str], log_path: Path) -> ForkedProcess:
        """Start `logsvc` with these arguments. Raises TimeoutError when the nursery does not answer."""
        read_end, write_end = os.pipe()
        with log_path.open("ab") as log:
            socket.send_fds(self._connection, [json.dumps(arguments).encode()], [write_end, log.fileno()])
        os.close(write_end)
        answer, (pidfd,), _, _ = socket.recv_fds(self._connection, REQUEST_BYTES_MAX, 1)
        return ForkedProcess(int(answer), pidfd, os.fdopen(read_end, "rb", buffering=0))

    @contextmanager
    def broker(self, data_dir: Path, *arguments: str) -> Iterator[ForkedBroker]:
        """As `broker_process`."""
        with tempfile.TemporaryDirectory(prefix="logsvc-") as temporary:
            broker = ForkedBroker(self, data_dir, Path(temporary, "broker.log"), arguments)
            broker.start()
            try:
                yield broker
            finally:
                broker.stop()


@contextmanager
def nursery(mutant: str = "", environment: Mapping[str, str] | None = None) -> Iterator[Nursery]:
    """A nursery while the block runs. `environment` adds to this process's own, for the brokers' settings."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(ANSWER_TIMEOUT_S)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.nursery", str(theirs.fileno()), mutant],
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env={**os.environ, **(environment or {})},
    )
    theirs.close()
    try:
        yield Nursery(ours)
    finally:
        ours.close()  # it reads the end, and ends
        process.wait(ANSWER_TIMEOUT_S)


def tend(connection: socket.socket, mutant: str) -> None:
    """Fork on demand until the other side is gone."""
    import uvicorn.lifespan.off
    import uvicorn.protocols.http.h11_impl  # noqa: F401 -- what takes the time, taken once

    from logsvc.cli import main, serve  # noqa: F401
    from logsvc.listeners import console_files  # noqa: F401
    from logsvc.listeners.api import routes  # noqa: F401

    gc.freeze()  # a collection in a child would copy every page of what is shared
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 2)
        if not request:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if not pid:
            connection.close()
            os.dup2(descriptors[0], 1)
            os.dup2(descriptors[1], 2)
            for descriptor in descriptors:
                os.close(descriptor)
            run(json.loads(request), mutant)
        for descriptor in descriptors:
            os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(connection, [b"%d" % pid], [pidfd])
        os.close(pidfd)


def run(arguments: list[str], mutant: str) -> None:
    """The child: the command, with the mutant's lines before it. Does not return."""
    import random

    from logsvc.cli.main import main

    random.seed()  # or every child would draw what its siblings draw
    sys.argv = ["logsvc", *arguments]
    try:
        if mutant:
            exec(compile(mutant, "mutant", "exec"), {})
        main(arguments)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:  # noqa: BLE001 -- told as the interpreter would, and then the end of this process
        sys.excepthook(*sys.exc_info())
    os._exit(1)


if __name__ == "__main__":
    tend(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
