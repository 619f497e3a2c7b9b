"""A real terminal for tests: tmux, with a shell in it that keys are typed into and whose screen is read.

Each has a server and a socket of its own, so that nobody's sessions are seen or touched. Waiting is polling of what is on the
screen, with an end; nothing counts on how long something takes.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT_SECONDS = 40.0
LOOK_SECONDS = 0.05


def skip_without_tmux() -> None:
    """Skips the test where there is no tmux."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed: what needs a real terminal is not tested (apt-get install tmux)")


class Terminal:
    """One window. Made by `terminal`."""

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self._socket = socket
        self._environment = environment

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-f", "/dev/null", "-S", str(self._socket), *arguments]
        done = subprocess.run(command, env=self._environment, check=True, capture_output=True, timeout=WAIT_SECONDS)
        return done.stdout.decode()

    def start(self, columns: int, rows: int) -> None:
        where = ("-c", str(self._socket.parent))
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), *where, "bash", "--norc", "--noprofile")

    def stop(self) -> None:
        self._tmux("kill-server")

    def type(self, text: str) -> None:
        """Type a line and Enter."""
        self._tmux("send-keys", "-l", text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: `q`, `Down`, `C-c`."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self, *, escapes: bool = False) -> list[str]:
        """The lines that are seen; with `escapes`, with their colours."""
        return self._tmux("capture-pane", "-p", *(["-e"] if escapes else [])).splitlines()

    def state(self, variable: str) -> str:
        """A variable of the pane, as `alternate_on`."""
        return self._tmux("display-message", "-p", f"#{{{variable}}}").strip()

    def wait_for(self, seen: str | Callable[[list[str]], object]) -> list[str]:
        """The screen as soon as `seen` is on it, or is true of it. AssertionError after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            lines = self.screen()
            if seen in "\n".join(lines) if isinstance(seen, str) else seen(lines):
                return lines
            assert time.monotonic() < deadline, f"{seen} is not on the screen:\n" + "\n".join(lines)
            time.sleep(LOOK_SECONDS)


@contextmanager
def terminal(columns: int, rows: int, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """A terminal of this size, in which a shell waits that has these variables and no others of this process."""
    skip_without_tmux()
    with tempfile.TemporaryDirectory(prefix="tmux-") as folder:
        clean = {"LC_ALL": "C.UTF-8", "PS1": "$ ", "HOME": folder, "HISTFILE": "", "PATH": os.environ["PATH"]}
        window = Terminal(Path(folder, "socket"), clean | dict(environment))
        window.start(columns, rows)
        try:
            window.wait_for("$")
            yield window
        finally:
            window.stop()
