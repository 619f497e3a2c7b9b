"""Writes the dashboards as JSON: `python -m dashboards.build`, or with `--check` fails when the committed JSON is stale.

What is written depends on the code and on the pinned version of the SDK alone, so that the same code gives the same bytes.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.broker import broker
from dashboards.consumer_lag import consumer_lag
from dashboards.delivery import delivery
from dashboards.overview import overview

FOLDER = Path(__file__).parent / "generated"
DASHBOARDS: Sequence[Callable[[], Dashboard]] = (overview, consumer_lag, delivery, broker)


def built() -> dict[str, str]:
    """The text of each file, by its name: `UID.json`."""
    return {f"{made.uid}.json": _text(made) for made in (build() for build in DASHBOARDS)}


def _text(made: Dashboard) -> str:
    return json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def stale(folder: Path, files: Mapping[str, str]) -> list[str]:
    """What differs between the folder and what was built, one line each."""
    there = {path.name: path.read_text() for path in sorted(folder.glob("*.json"))}
    missing = [f"{name} is missing" for name in files if name not in there]
    changed = [f"{name} is not what the code says" for name, text in files.items() if there.get(name, text) != text]
    unknown = [f"{name} is built by nothing" for name in there if name not in files]
    return [*missing, *changed, *unknown]


def main(arguments: Sequence[str], folder: Path = FOLDER) -> int:
    """Build or check; the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m dashboards.build [--check]", file=sys.stderr)
        return 2
    files = built()
    if arguments:
        found = stale(folder, files)
        for line in found:
            print(line, file=sys.stderr)
        if found:
            print("run: python -m dashboards.build", file=sys.stderr)
        return 1 if found else 0
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
