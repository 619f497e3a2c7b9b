"""Every command in the documentation runs: the shell blocks of README.md and docs/, document by document, in order.

The convention, for whoever writes a document:

* A fenced block marked `sh`, `bash` or `console`, or not marked at all and holding a line that begins with `logsvc` or `make`,
  is a script. The blocks of one document share a folder and a broker and run in their order, as a reader would type them; each
  line must succeed. `$ ` in front of a command is taken off; lines without it are then what the command prints, and left out.
* `<!-- not run: why -->` on the line above a block leaves it out. `make TARGET` is checked with `make -n`; lines that
  install (`pip install`, `git clone`, `cd`) are left out.
* `access.log` is there: a small web server's log. Ports and the data folder are given by the environment, and `HTTP` becomes
  where the broker listens, so that the commands stand in the documents as people type them. A document that starts no broker
  itself is given one.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from logsvc.cli.access_log import sample_lines
from logsvc.testing import broker_process

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
SHELL = {"sh", "bash", "console", "shell"}
OURS = re.compile(r"^(\$ )?(logsvc|make) ", re.MULTILINE)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
LEFT_OUT = re.compile(r"^(\S*pip install|git clone|cd|\. |source )\b")
BLOCK = re.compile(r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
RUN_SECONDS = 100
HTTP = "http://127.0.0.1:9293"


class Block(NamedTuple):
    line: int
    text: str


def shell_blocks(document: str) -> list[Block]:
    """The blocks to run, with the number of the line each begins on."""
    found = []
    for match in BLOCK.finditer(document):
        language, body = match["language"], match["body"]
        if language not in SHELL and not (language == "" and OURS.search(body)):
            continue
        above = document[: match.start()].rstrip("\n").rpartition("\n")[2]
        if NOT_RUN.fullmatch(above.strip()):
            continue
        found.append(Block(document[: match.start()].count("\n") + 2, body))
    return found


def commands(block: str) -> str:
    """What a reader would type."""
    lines = block.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith(("$ ", "> "))]
    return "\n".join(_command(line) for line in lines if not LEFT_OUT.match(line.strip())) + "\n"


def _command(line: str) -> str:
    return re.sub(r"^make ", f"make -n -C '{ROOT}' ", line)


def script_of(document: str) -> str:
    return "".join(f"# line {block.line}\n{commands(block.text)}" for block in shell_blocks(document))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def environment(script: str) -> Iterator[tuple[dict[str, str], str]]:
    """Where a document's commands find the broker, the one it starts itself or one that runs meanwhile: variables, and its HTTP
    address."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGSVC_")} | {"PATH": path}
    if "logsvc serve" in script:
        address = f"tcp://127.0.0.1:{free_port()}"
        http_port = str(free_port())
        variables = {"LOGSVC_BIND": address, "LOGSVC_SERVER": address, "LOGSVC_HTTP_PORT": http_port}
        yield clean | variables, f"http://127.0.0.1:{http_port}"
    else:
        with broker_process() as broker:
            assert broker.http_url is not None
            yield clean | {"LOGSVC_SERVER": broker.server}, broker.http_url


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if script_of(path.read_text())], ids=lambda path: path.name)
def test_every_command_of_the_document_runs(path: Path, tmp_path: Path) -> None:
    script = script_of(path.read_text())
    (tmp_path / "access.log").write_bytes(b"".join(line + b"\n" for line in sample_lines(200)))
    # Brokers that the document put into the background end with the script.
    whole = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nset -euo pipefail\nset -v\n" + script
    if re.search(r"^curl ", script, re.MULTILINE) and shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with environment(script) as (variables, http_url), (tmp_path / "output").open("w+b") as output:
        done = subprocess.run(
            ["bash", "-c", whole.replace(HTTP, http_url)],
            cwd=tmp_path,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=RUN_SECONDS,
            check=False,
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode("utf-8", "replace")[-4_000:]


EXAMPLE = """
# Title

```
logsvc topic create a
pip install .
make demo     # comment
```

```python
logsvc = 1
```

```
a picture: logsvc
```

<!-- not run: takes long -->
```sh
logsvc bench produce
```

```console
$ logsvc topic list
TOPIC  PARTITIONS
$ echo x | logsvc produce a
```
"""


class TestTheConventionItself:
    def test_only_shell_blocks_that_are_not_excused_are_taken(self) -> None:
        blocks = shell_blocks(EXAMPLE)
        assert [block.line for block in blocks] == [5, 24]

    def test_prompts_and_printed_lines_go_and_make_is_only_asked(self) -> None:
        script = script_of(EXAMPLE)
        assert "logsvc topic create a\n" in script
        assert "pip install" not in script
        assert f"make -n -C '{ROOT}' demo" in script
        assert "\nlogsvc topic list\necho x | logsvc produce a\n" in script
        assert "TOPIC  PARTITIONS" not in script

    def test_an_excuse_needs_a_reason(self) -> None:
        assert len(shell_blocks("<!-- not run:  -->\n```sh\nlogsvc demo\n```\n")) == 1
