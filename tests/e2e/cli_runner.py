"""Running `logsvc` in tests: as a process, as people and scripts do, or inside this one, which is ten times quicker."""

import io
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import pytest

from logsvc.cli.main import main

RUN_SECONDS = 60
NOBODY = "tcp://127.0.0.1:9"  # the discard port: nothing of ours listens there


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def document(self) -> Any:
        """Its stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        """Its stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Runner(ABC):
    """The command line, with `LOGSVC_SERVER` set to one broker."""

    def __init__(self, server: str = NOBODY) -> None:
        self.server = server

    @abstractmethod
    def __call__(self, *arguments: str, input: bytes = b"") -> Outcome:
        """Run a command to its end."""

    def json(self, *arguments: str, input: bytes = b"") -> Any:
        """The JSON document of a command that must succeed."""
        outcome = self(*arguments, "--format", "json", input=input)
        assert outcome.code == 0, outcome.err
        return outcome.document


class Logsvc(Runner):
    """Each command is a process."""

    def __init__(self, server: str = NOBODY) -> None:
        super().__init__(server)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSVC_")}
        self.environment["LOGSVC_SERVER"] = server

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """A command that goes on; the caller ends it."""
        command = [sys.executable, "-m", "logsvc.cli.main", *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def __call__(self, *arguments: str, input: bytes = b"") -> Outcome:
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input, timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Outcome(process.returncode, out, err.decode("utf-8", "replace"))


class InProcess(Runner):
    """Each command is a call of `main`, its streams captured."""

    def __init__(self, server: str, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        super().__init__(server)
        self._monkeypatch = monkeypatch
        self._capture = capture
        monkeypatch.setenv("LOGSVC_SERVER", server)

    def __call__(self, *arguments: str, input: bytes = b"") -> Outcome:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input)))
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = self._capture.readouterr()
        return Outcome(int(ended.value.code or 0), out, err.decode("utf-8", "replace"))
