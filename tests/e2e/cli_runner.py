"""Running `logsvc` as people and scripts do: a process, arguments, what it writes and its exit code."""

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

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


class Logsvc:
    """The command line, with `LOGSVC_SERVER` set to one broker."""

    def __init__(self, server: str = NOBODY) -> None:
        self.server = server
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSVC_")}
        self.environment["LOGSVC_SERVER"] = server

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """A command that goes on; the caller ends it."""
        command = [sys.executable, "-m", "logsvc.cli.main", *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def __call__(self, *arguments: str, input: bytes = b"") -> Outcome:
        """Run a command to its end; TimeoutExpired after RUN_SECONDS."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(input, timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Outcome(process.returncode, out, err.decode("utf-8", "replace"))

    def json(self, *arguments: str, input: bytes = b"") -> Any:
        """The JSON document of a command that must succeed."""
        outcome = self(*arguments, "--format", "json", input=input)
        assert outcome.code == 0, outcome.err
        return outcome.document
