"""Every piece of Python in the documentation runs: the `python` blocks of README.md and docs/, each as a script of its own.

The convention, for whoever writes a document:

* The blocks of a document run in their order, against one broker; `tcp://127.0.0.1:9292` in them is replaced by its address.
  It has a topic `orders` (unless the document creates it) with new records before each block, and a group `billing` with a
  dead letter of a `NoCustomer`.
* A block that goes on until somebody stops it has `<!-- stopped by Ctrl-C -->` on the line above: so it is, after STOP_SECONDS.
* A block that imports nothing is a fragment: it finds all names of `logsvc_client`, and a `handle(record)`.
* A block that defines `test_...` functions is given to pytest.
* `<!-- not run: why -->` on the line above leaves a block out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from logsvc.testing import BrokerProcess
from logsvc.testing import broker_process as started_broker
from logsvc_client import Admin, Consumer, Producer, RetryPolicy
from tests.e2e.test_documented_commands import BLOCK, DOCUMENTS, NOT_RUN

SERVER = "tcp://127.0.0.1:9292"
STOPPED = "<!-- stopped by Ctrl-C -->"
STOP_SECONDS = 1.5
RUN_SECONDS = 40
TEST = re.compile(r"^(async )?def test_", re.MULTILINE)
IMPORT = re.compile(r"^(from|import) ", re.MULTILINE)

# The alarm is set when the imports are done, so that it never falls into them on a slow machine.
PREAMBLE = """\
import os, signal, threading
import logsvc_client
alarm = threading.Timer({stop_seconds}, lambda: os.kill(os.getpid(), signal.SIGINT))
alarm.daemon = True
names = {{"__name__": "__main__"}}
if {fragment}:
    names |= {{name: getattr(logsvc_client, name) for name in logsvc_client.__all__}} | {{"handle": print}}
code = compile(open({path!r}).read(), {path!r}, "exec")
if {stopped}:
    alarm.start()
try:
    exec(code, names)
except KeyboardInterrupt:
    if not {stopped}:
        raise
"""


class Piece(NamedTuple):
    line: int
    text: str
    stopped: bool

    @property
    def is_test(self) -> bool:
        return TEST.search(self.text) is not None

    @property
    def is_fragment(self) -> bool:
        return IMPORT.search(self.text) is None


def pieces(document: str) -> list[Piece]:
    """The blocks to run, with the number of the line each begins on."""
    found = []
    for match in BLOCK.finditer(document):
        above = document[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        if match["language"] == "python" and not NOT_RUN.fullmatch(above):
            line = document[: match.start()].count("\n") + 2
            found.append(Piece(line, match["body"], above == STOPPED))
    return found


class NoCustomer(Exception):
    """What the dead letter died of."""


def set_the_table(server: str) -> None:
    """A topic, a group, a dead letter."""
    with Admin(server) as admin:
        admin.create_topic("orders", partitions=4)
    produce(server)

    def handle(record: object) -> None:
        consumer.stop()
        raise NoCustomer("no customer carol")

    with Consumer("orders", group_id="billing", server=server) as consumer:
        consumer.run(handle, retry=RetryPolicy(max_attempts=1))


def produce(server: str) -> None:
    with Producer(server) as producer:
        for number in range(20):
            producer.send("orders", b'{"total": %d}' % number, key=b"customer-%d" % (number % 7))


def command(piece: Piece, path: Path) -> list[str]:
    if piece.is_test:
        return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    settings = {"stop_seconds": STOP_SECONDS, "stopped": piece.stopped, "fragment": piece.is_fragment, "path": str(path)}
    return [sys.executable, "-c", PREAMBLE.format(**settings)]


def text_of(piece: Piece, server: str) -> str:
    names = "from logsvc_client import *\n" if piece.is_test and piece.is_fragment else ""
    # Empty lines in front, so that a traceback names the line of the document.
    return names + "\n" * (piece.line - 1 - bool(names)) + piece.text.replace(SERVER, server)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if pieces(path.read_text())], ids=lambda path: path.name)
def test_every_piece_of_python_in_the_document_runs(document: Path, tmp_path: Path) -> None:
    found = pieces(document.read_text())
    creates = any('create_topic("orders"' in piece.text for piece in found if not piece.is_test)
    with started_broker() as broker:
        if not creates:
            set_the_table(broker.server)
        for number, piece in enumerate(found):
            if not creates:
                produce(broker.server)
            run(piece, tmp_path / f"test_piece_{number}.py", broker)


def run(piece: Piece, path: Path, broker: BrokerProcess) -> None:
    path.write_text(text_of(piece, broker.server))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOGSVC_", "PYTEST_"))}
    done = subprocess.run(
        command(piece, path),
        cwd=path.parent,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"line {piece.line}: {done.stdout.decode('utf-8', 'replace')[-4_000:]}"


EXAMPLE = """
```python
import time
```

<!-- stopped by Ctrl-C -->
```python
consumer.run(handle)
```

<!-- not run: needs a bank -->
```python
import bank
```

```python
def test_it(logsvc_broker): ...
```
"""


class TestTheConventionItself:
    def test_blocks_are_taken_as_they_are_marked(self) -> None:
        found = pieces(EXAMPLE)
        assert [(piece.line, piece.stopped, piece.is_test, piece.is_fragment) for piece in found] == [
            (3, False, False, False),
            (8, True, False, True),
            (17, False, True, True),
        ]

    def test_a_traceback_names_the_line_of_the_document(self) -> None:
        for piece in pieces(EXAMPLE):
            lines = text_of(piece, SERVER).splitlines()
            assert lines[piece.line - 1 :] == piece.text.splitlines()
