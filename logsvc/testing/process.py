"""A broker in a process of its own, as in production: for benchmarks, and for tests that kill it.

It is `logsvc serve`, told to take free ports and to say which ones as JSON.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from logsvc_common.errors import StartError

START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 30.0
ERROR_BYTES_MAX = 4_096  # of its log, told when it does not start


class _Announcement(msgspec.Struct):
    server: str
    http_url: str | None


class BrokerProcess:
    """A `logsvc serve` that this process started. Made by `broker_process`; it can be killed and started again."""

    def __init__(self, data_dir: Path, log_path: Path, arguments: tuple[str, ...] = ()) -> None:
        self.data_dir = data_dir
        self.log_path = log_path
        self.server = "tcp://127.0.0.1:0"
        self.http_url: str | None = None
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id. RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("the broker does not run")
        return self._process.pid

    def start(self) -> None:
        """Start it, after the first time on the same ports. Returns when clients can connect; StartError says why not."""
        http_port = self.http_url.rpartition(":")[2] if self.http_url else "0"
        where = ["--data-dir", str(self.data_dir), "--bind", self.server, "--http-port", http_port, "--format", "json"]
        self._process = self._launch(["serve", *where, *self._arguments])
        line = self._first_line(self._process)
        if not line.endswith(b"\n"):
            self.kill()
            raise StartError(f"the broker did not start: {self._log_end()}")
        announced = msgspec.json.decode(line, type=_Announcement)
        self.server, self.http_url = announced.server, announced.http_url

    def _launch(self, arguments: list[str]) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "logsvc.cli.main", *arguments]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)

    def stop(self) -> int:
        """SIGTERM, and wait for its end. Returns its exit code; 0 when it did not run."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait for its end: what a crash of the process leaves behind."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(STOP_TIMEOUT_SECONDS)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> bytes:
        """The line it announces itself with; what there is of it when the process ends or the time is up."""
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(process.stdout.fileno(), 4_096) if ready else b""
            if not piece:
                break
            line += piece
        return line

    def _log_end(self) -> str:
        return self.log_path.read_bytes()[-ERROR_BYTES_MAX:].decode("utf-8", "replace").strip()


@contextmanager
def broker_process(data_dir: str | Path | None = None, *arguments: str) -> Iterator[BrokerProcess]:
    """Run `logsvc serve` while the block runs: on `data_dir`, or on a temporary folder that is removed afterwards.

    `arguments` go to `logsvc serve` as they are. Yields a BrokerProcess: `server` is the address for clients, `http_url` where
    metrics are. Raises StartError with the end of its log when it does not start within START_TIMEOUT_SECONDS.
    """
    with tempfile.TemporaryDirectory(prefix="logsvc-") as temporary:
        folder = Path(data_dir) if data_dir is not None else Path(temporary, "data")
        broker = BrokerProcess(folder, Path(temporary, "broker.log"), arguments)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()
