"""`logsvc top` on a terminal: keys come in, looks come in, the screen goes out.

One asyncio loop: a task that looks at the broker, a reader of the keyboard, handlers of signals, and the drawing, woken by any
of them. A broker that does not answer holds up nobody: what was seen last stays, with its age, and the next look is tried at
the next interval. However it ends (q, Ctrl-C, SIGTERM, SIGHUP, an error), the terminal is as it was.
"""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator

from rich.console import Console
from rich.live import Live as Display
from rich.text import Text

from logsvc.cli.drawing import glyphs_of
from logsvc.cli.top_answers import Status
from logsvc.cli.top_keys import Screen, keys
from logsvc.cli.top_model import History, Order, Sample, pause_s
from logsvc.cli.top_view import frame
from logsvc_common.errors import LogsvcError

REDRAW_S = 1.0  # ages on the screen grow even when nothing comes
KEY_BYTES_MAX = 1_024  # read at once
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Live:
    """One run on this process's terminal. `look` takes a sample; its LogsvcError is shown, and it is asked again."""

    def __init__(
        self,
        server: str,
        look: Callable[[], Awaitable[Sample]],
        history: History,
        order: Order,
        *,
        interval_s: float,
        iterations: int | None,
    ) -> None:
        self._server = server
        self._look = look
        self._history = history
        self._screen = Screen(order=order)
        self._interval_s = interval_s
        self._pause_s = interval_s
        self._iterations = iterations
        self._error = ""
        self._ended_by: signal.Signals | None = None
        self._suspended = False
        self._changed = asyncio.Event()
        self._console = Console()
        self._glyphs = glyphs_of(self._console.encoding)

    async def run(self) -> None:
        """Until a key or a signal ends it, or `iterations` looks have been taken; then the last one stays on the terminal.

        The first look comes before the screen is taken: its error is raised.
        """
        self._history.add(await self._look())
        looking = asyncio.create_task(self._keep_looking())
        try:
            with self._signals():
                while not self._over(looking):
                    with self._terminal() as display:
                        await self._show(display, looking)
                    if self._suspended:  # Ctrl-Z: the shell has the terminal until it says `fg`.
                        os.kill(os.getpid(), signal.SIGSTOP)
                        self._suspended = False
        finally:
            looking.cancel()
        if self._ended_by is not None:
            sys.exit(128 + self._ended_by)
        if not self._screen.quit:
            await looking
            self._console.print(self._draw(trimmed=True))

    async def _show(self, display: Display, looking: asyncio.Task[None]) -> None:
        while not (self._over(looking) or self._suspended):
            self._changed.clear()
            display.update(self._draw(), refresh=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REDRAW_S)

    def _over(self, looking: asyncio.Task[None]) -> bool:
        return self._screen.quit or self._ended_by is not None or looking.done()

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[Display]:
        """The alternate screen and the keyboard, given back at the end."""
        display = Display(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        with display, _Keyboard(self._pressed).taken():
            yield display

    async def _keep_looking(self) -> None:
        taken = 1
        while self._iterations is None or taken < self._iterations:
            await asyncio.sleep(self._pause_s)
            if self._screen.paused:
                continue
            began_s = time.monotonic()
            try:
                self._history.add(await self._look())
            except LogsvcError as error:
                self._error = error.message
                self._pause_s = self._interval_s
            else:
                self._error = ""
                self._pause_s = pause_s(self._interval_s, time.monotonic() - began_s)
                taken += 1
            self._changed.set()
        self._changed.set()

    def _draw(self, *, trimmed: bool = False) -> Text:
        overview = self._history.overview(self._screen.order)
        assert overview is not None, "the first look was taken before"
        status = Status(self._server, self._pause_s, time.monotonic(), self._error)
        width, height = self._console.size
        lines = frame(overview, self._screen, status, width, height, self._glyphs)
        if trimmed:  # Without the keys, and what is blank above them.
            lines.pop()
            while lines and not lines[-1].plain:
                lines.pop()
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _pressed(self, data: bytes) -> None:
        overview = self._history.overview(self._screen.order)
        rows = (len(overview.groups), len(overview.topics)) if overview is not None else (0, 0)
        for key in keys(data):
            self._screen = self._screen.press(key, rows)
        self._changed.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = (signal.SIGWINCH, signal.SIGTSTP, *ENDING_SIGNALS)
        loop.add_signal_handler(signal.SIGWINCH, self._changed.set)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        for number in ENDING_SIGNALS:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _end(self, number: signal.Signals) -> None:
        self._ended_by = number
        self._changed.set()

    def _suspend(self) -> None:
        self._suspended = True
        self._changed.set()


class _Keyboard:
    """Keys as they are pressed, without echo, while `taken`; Ctrl-C and Ctrl-Z stay signals. None when stdin is no terminal."""

    def __init__(self, pressed: Callable[[bytes], None]) -> None:
        self._pressed = pressed
        self._file = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """The keyboard is ours in the block, and as it was after it."""
        if self._file < 0:
            yield
            return
        before = termios.tcgetattr(self._file)
        loop = asyncio.get_running_loop()
        tty.setcbreak(self._file)
        loop.add_reader(self._file, self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._file)
            # FLUSH: what was typed too late must not become a command of the shell.
            termios.tcsetattr(self._file, termios.TCSAFLUSH, before)

    def _read(self) -> None:
        try:
            data = os.read(self._file, KEY_BYTES_MAX)
        except OSError:
            data = b""  # The terminal has gone: SIGHUP is on its way.
        if data:
            self._pressed(data)
        else:
            asyncio.get_running_loop().remove_reader(self._file)
