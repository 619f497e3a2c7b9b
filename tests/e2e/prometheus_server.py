"""Debian's real Prometheus as a process of a test: its own folder, a loopback port, a scrape a second; ended by its pid."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

READY_S = 20.0
STOP_S = 20.0
LOOK_S = 0.1
QUERY_TIMEOUT_S = 10.0

Labels = dict[str, str]


class Series(NamedTuple):
    """A series of a result; `points` are (time in seconds since the epoch, value), one for an instant query."""

    labels: Labels
    points: list[tuple[float, float]]


class Prometheus:
    """A Prometheus that runs. Made by `prometheus`."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self._process = process

    def api(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer of its HTTP API; AssertionError with what it says when it is not a success."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=QUERY_TIMEOUT_S) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error
        assert document["status"] == "success", document
        return document["data"]

    def now(self, expr: str) -> list[Series]:
        """The value of an expression now: one point a series."""
        found = self.api("query", query=expr)
        if found["resultType"] == "scalar":
            return [Series({}, [_point(found["result"])])]
        # A range of raw samples, as `metric[1m]`, comes as several points.
        return [
            Series(each["metric"], [_point(point) for point in each.get("values", [each.get("value")])])
            for each in found["result"]
        ]

    def over(self, expr: str, seconds: float, step_s: float = 1.0) -> list[Series]:
        """The values of an expression over the last `seconds`."""
        end = time.time()
        found = self.api("query_range", query=expr, start=end - seconds, end=end, step=step_s)
        return [Series(each["metric"], [_point(point) for point in each["values"]]) for each in found["result"]]

    def wait_for(self, expr: str, holds: Callable[[list[Series]], bool], timeout_s: float) -> list[Series]:
        """The result of an instant query as soon as it `holds`; AssertionError when it never does."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.now(expr)
            if holds(found):
                return found
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {expr} is {found}"
            time.sleep(LOOK_S)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return
            assert self._process.poll() is None, "Prometheus has ended"
            assert time.monotonic() < deadline, f"Prometheus was not ready within {READY_S:.0f} s"
            time.sleep(LOOK_S)


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def skip_without(program: str) -> str:
    """The path of a program of Debian's `prometheus` package; skips the test where there is none."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not here: apt-get install prometheus (.ci/run does)")
    return found


@contextmanager
def prometheus(folder: Path, rules: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """A Prometheus that scrapes `targets` (HOST:PORT) as the job `logsvc` and evaluates the rule files `rules`, each second."""
    program = skip_without("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "logsvc", "static_configs": [{"targets": [target]} for target in [*targets, f"127.0.0.1:{port}"]]}
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}", process)
        running.wait_ready()
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
