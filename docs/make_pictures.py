"""Draws the pictures in the documents from the tables in the code: `python docs/make_pictures.py`.

A document holds a picture between `<!-- picture: NAME -->` and `<!-- end of picture -->`; what stands between is replaced. With
`--check` nothing is written, and the exit code is 1 when a document shows something else than the code says: the tests do that.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from logsvc_common.delivery import TRANSITIONS, Event, State

DOCS = Path(__file__).parent
PLACE = re.compile(r"(<!-- picture: (?P<name>\w+) -->\n).*?(<!-- end of picture -->)", re.DOTALL)


def delivery() -> str:
    """The transitions of a record that did not simply succeed, one arrow for each pair of states."""
    arrows: dict[tuple[State, State], list[Event]] = {}
    for (state, event), following in TRANSITIONS.items():
        arrows.setdefault((state, following), []).append(event)
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {State.NEW}"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    return "\n".join(["```mermaid", *lines, "```"])


PICTURES: dict[str, Callable[[], str]] = {"delivery": delivery}


def drawn(document: str) -> str:
    """The document with its pictures as the code has them now."""
    return PLACE.sub(lambda found: f"{found[1]}{PICTURES[found['name']]()}\n{found[3]}", document)


def main(arguments: list[str]) -> int:
    stale = [path for path in sorted(DOCS.glob("*.md")) if drawn(path.read_text()) != path.read_text()]
    for path in stale:
        if "--check" in arguments:
            print(f"{path.name} shows an old picture; run: python docs/make_pictures.py", file=sys.stderr)
        else:
            path.write_text(drawn(path.read_text()))
            print(f"{path.name} is drawn anew")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
