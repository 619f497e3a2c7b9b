"""What import-linter cannot say about the house: purity by syntax tree, one door to each foreign library, the size of files.

Import-linter sees which module imports which. It does not see an import inside a function of a pure module's standard
library cousins (`datetime.now`), a file that grows, or a path of somebody's machine.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted([*ROOT.glob("logsvc/**/*.py"), *ROOT.glob("clients/**/*.py"), *ROOT.glob("dashboards/*.py")])
FILE_LINES_MAX = 400

PURE = [
    "clients/logsvc_common",
    "clients/logsvc_client/accumulator.py",
    "clients/logsvc_client/commits.py",
    "clients/logsvc_client/connection.py",
    "clients/logsvc_client/fetcher.py",
    "clients/logsvc_client/membership.py",
    "clients/logsvc_client/partitioner.py",
    "clients/logsvc_client/progress.py",
    "logsvc/broker/client_quotas.py",
    "logsvc/broker/parked.py",
    "logsvc/broker/token_bucket.py",
    "logsvc/cli/drawing.py",
    "logsvc/cli/positions.py",
    "logsvc/cli/tables.py",
    "logsvc/cli/top_answers.py",
    "logsvc/cli/top_keys.py",
    "logsvc/cli/top_model.py",
    "logsvc/cli/top_view.py",
    "logsvc/coordinator",
    "logsvc/storage/retention.py",
]
IMPURE = {
    "asyncio",
    "concurrent",
    "os",
    "pathlib",
    "queue",
    "random",
    "secrets",
    "select",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "zmq",
}
# Reached without an import of a module above: `datetime.now()`, `date.today()`, `open(...)`, `input()`, `print(...)`.
IMPURE_CALLS = {"now", "utcnow", "today", "open", "input", "print", "urandom", "__import__", "import_module"}

# Foreign library -> the only files of the product that may import it.
DOORS = {
    "aiokafka": {"clients/logsvc_common/batch.py"},
    "cramjam": {"clients/logsvc_common/batch.py"},
    "grafana_foundation_sdk": {"dashboards"},
    "fastcrc": {"clients/logsvc_common/batch.py", "logsvc/storage"},
    "murmurhash2": {"clients/logsvc_common/keys.py"},
    "zmq": {
        "clients/logsvc_client/transport.py",
        "logsvc/listeners",
    },
    "typer": {"logsvc/cli"},
    "rich": {"logsvc/cli"},
    "starlette": {"logsvc/listeners", "logsvc/console"},
    "uvicorn": {"logsvc/listeners"},
    "pydantic": {"logsvc/config.py", "logsvc/cli/serve.py"},
    "pydantic_settings": {"logsvc/config.py"},
    "prometheus_client": {"logsvc/metrics"},
}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def within(path: Path, places: object) -> bool:
    assert isinstance(places, (list, set))
    return any(shown(path) == place or shown(path).startswith(f"{place}/") for place in places)


def imports(path: Path) -> Iterator[str]:
    """The top-level names of every module imported anywhere in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), shown(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(), shown(path))):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr
            elif isinstance(node.func, ast.Name):
                yield node.func.id


@pytest.mark.parametrize("place", PURE)
def test_decisions_reach_no_clock_no_chance_no_disk_and_no_socket(place: str) -> None:
    files = [path for path in PRODUCT if within(path, [place])]
    assert files, f"{place} is gone: its successor belongs into this list"
    found = {shown(path): sorted(IMPURE.intersection(imports(path)) | IMPURE_CALLS.intersection(calls(path))) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("library", DOORS)
def test_a_foreign_library_has_one_door(library: str) -> None:
    elsewhere = [shown(path) for path in PRODUCT if library in imports(path) and not within(path, DOORS[library])]
    assert elsewhere == []


def test_no_file_of_the_product_is_longer_than_a_reader_can_hold() -> None:
    lines = {shown(path): path.read_text().count("\n") for path in PRODUCT}
    assert {path: count for path, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_every_file_of_the_product_opens_with_its_strategy() -> None:
    without = [
        shown(path) for path in PRODUCT if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert without == []


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        shown(path)
        for path in PRODUCT
        if shown(path) != "logsvc/config.py" and re.search(r"\bos\.(environ|getenv)\b", path.read_text())
    ]
    assert readers == []


def test_nothing_is_left_to_do() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]))
    assert [shown(path) for path in PRODUCT if words.search(path.read_text())] == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    # Put together here, so that this file does not name one either.
    folders = re.compile(
        "|".join(f"(?<![\\w.]){re.escape('/' + name + '/')}" for name in ("work", "root", "home", "tmp", "Users"))
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=30, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: the list of files is git's")
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        # Vendored pages and pictures are not text of ours.
        if path.suffix in {".png", ".svg", ".woff2"} or ".min." in path.name or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if folders.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []
