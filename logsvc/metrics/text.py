r"""Prometheus' text, fast: the labels of a series hardly ever change, its number always does.

So the labels of a run of series are kept as one template, `{group="g",topic="t",partition="0"} %d` a line, and a whole run is
filled in by one C call. The same template serves every family that has these labels: the metric's name is put in front of
each line afterwards, by a replace of the line ends (no label value holds one, it would be escaped). That is a tenth of a
microsecond a series, where a library that builds an object for each takes five.

Templates are kept for as long as each scrape asks for them again with the same label sets.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

CONTENT_EOF = b"# EOF\n"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

RowT = TypeVar("RowT")


def labels_text(names: Sequence[str], values: Sequence[str]) -> bytes:
    """`{name="value",...}`, escaped; nothing for no labels."""
    if not names:
        return b""
    pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}".encode()


def header(name: str, kind: str, help_text: str, *, openmetrics: bool = False) -> bytes:
    """The two lines before a family. `name` is without `_total`, which a counter's family bears in the older format only."""
    family = f"{name}_total" if kind == "counter" and not openmetrics else name
    return f"# HELP {family} {help_text}\n# TYPE {family} {kind}\n".encode()


def template_row(names: Sequence[str], values: Sequence[str], number: bytes) -> bytes:
    """One line of a template; `number` is the format of the value, as `%d`."""
    return labels_text(names, values).replace(b"%", b"%%") + b" " + number + b"\n"


def fill(name: bytes, template: bytes, values: Iterable[float]) -> bytes:
    """The lines of one family: its template with the numbers in."""
    block = template % tuple(values)
    return name + block[:-1].replace(b"\n", b"\n" + name) + b"\n"


class Templates(Generic[RowT]):
    """Templates of runs of series. A run has a key, and rows that say which series it has."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Sequence[RowT], bytes]] = {}
        self._asked: set[Hashable] = set()

    def get(self, key: Hashable, rows: Sequence[RowT], make: Callable[[RowT], bytes]) -> bytes:
        """The template of `rows`, made of `make` of each unless it is known. `rows` must not be changed afterwards."""
        self._asked.add(key)
        known = self._kept.get(key)
        if known is not None and known[0] == rows:
            return known[1]
        template = b"".join([make(row) for row in rows])
        self._kept[key] = (rows, template)
        return template

    def end_scrape(self) -> None:
        """Forget what this scrape did not ask for."""
        for key in self._kept.keys() - self._asked:
            del self._kept[key]
        self._asked.clear()
