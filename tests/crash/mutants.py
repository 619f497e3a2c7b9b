"""Brokers with one thing wrong, to see that the kill harness notices.

A mutant is a few lines of Python that run in the broker's process before `logsvc serve`. The harness starts the broker with
`sys.executable`; `mutated` puts a script in its place that runs those lines and then what it was asked to run.
"""

import shlex
import sys
from pathlib import Path

MUTANTS = {
    # Retries are appended again.
    "forgets producers": """
from logsvc.storage.producer_state import ProducerState
ProducerState.check = lambda self, header: None
""",
    # The last few writes stay in the process: whoever reads sees them, a kill takes them.
    "acknowledges what it has not written": """
from logsvc.storage.disk import RealFile

class LazyFile(RealFile):
    waiting = []
    def pwritev(self, buffers, position):
        data = b"".join(bytes(piece) for piece in buffers)
        LazyFile.waiting.append((self, data, position))
        if len(LazyFile.waiting) > 20:
            LazyFile.write_all()
        return len(data)
    def write_all():
        waiting, LazyFile.waiting = LazyFile.waiting, []
        for file, data, position in waiting:
            RealFile.pwritev(file, [data], position)
    def pread(self, length, position):
        data = bytearray(super().pread(length, position))
        for file, written, at in LazyFile.waiting:
            low, high = max(at, position), min(at + len(written), position + length)
            if file is self and low < high:
                data.extend(bytes(max(0, high - position - len(data))))
                data[low - position : high - position] = written[low - at : high - at]
        return bytes(data)
    def size(self):
        LazyFile.write_all()
        return super().size()
    def close(self):
        LazyFile.write_all()
        super().close()

import logsvc.storage.disk
logsvc.storage.disk.RealFile = LazyFile
""",
    # Recovery takes the last good batch of a segment for a torn one.
    "cuts off a good batch": """
import sys
from pathlib import Path
from logsvc_common.batch import split
for folder in Path(sys.argv[sys.argv.index("--data-dir") + 1]).glob("kill-run-*"):
    for segment in sorted(folder.glob("*.log"))[-1:]:
        whole = [len(batch) for _, batch in split(segment.read_bytes())]
        if len(whole) > 1:
            with segment.open("r+b") as file:
                file.truncate(sum(whole[:-1]))
            (folder / "checkpoint").unlink(missing_ok=True)
""",
}


def mutated(folder: Path, mutant: str) -> str:
    """An executable that stands in for the interpreter and runs the broker with `mutant` applied; its path."""
    program = folder / "mutant.py"
    program.write_text(f"{MUTANTS[mutant]}\nfrom logsvc.cli.main import main\nmain()\n")
    script = folder / "python"
    # Called as PYTHON -m logsvc.cli.main serve ...: `-m` and the module make way for the program.
    script.write_text(f'#!/bin/sh\nshift 2\nexec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$@"\n')
    script.chmod(0o755)
    return str(script)
