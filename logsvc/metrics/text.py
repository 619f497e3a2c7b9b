r"""Prometheus' text, fast: the labels of a series hardly ever change, its number always does.

So the labels of a run of series are kept as one template, `{group="g",topic="t",partition="0"} %d` a line, and a whole run is
filled in by one C call. The same template serves every family that has these labels: the metric's name is put in front of
each line afterwards, by a replace of the line ends (no label value holds one, it would be escaped). That is a tenth of a
microsecond a series, where a library that builds an object for each takes five.

Templates are kept for as long as each scrape asks for them again with the same label sets.
"""

import re
from collections.abc import Hashable, Iterable, Sequence

CONTENT_EOF = b"# EOF\n"
WHOLE = b" %d"
SECONDS = b" %.3f"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

_SPECIAL = re.compile(r'[%\\"\n]')

Row = tuple[str | int, ...]


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


def template(names: Sequence[str], shared: Sequence[str], rows: Sequence[Row], variants: Sequence[str] = ()) -> bytes:
    """A line for each row, or one for each of `variants` of each row. The labels `names` have the values `shared`, then those
    of the row, then the variant."""
    # Made by two passes of `%`: the first puts in the labels of the rows, the second, in `fill`, the numbers.
    pairs = [f'{name}="{_escape(value, "%%%%")}"' for name, value in zip(names, shared, strict=False)]
    pairs += [f'{name}="%s"' for name in names[len(shared) : len(names) - bool(variants)]]
    lines = [[*pairs, f'{names[-1]}="{_escape(variant, "%%%%")}"'] for variant in variants] or [pairs]
    text = "".join(f"{{{','.join(line)}}} %%d\n" if line else " %%d\n" for line in lines)
    if any(_SPECIAL.search(value) for value in {value for row in rows for value in row if isinstance(value, str)}):
        rows = [tuple(_escape(str(value), "%%") for value in row) for row in rows]
    return "".join([text % (row * len(lines)) for row in rows]).encode()


def _escape(value: str, percent: str) -> str:
    return value.translate(_ESCAPES).replace("%", percent)


def fill(name: bytes, lines: bytes, values: Iterable[float], number: bytes = WHOLE) -> bytes:
    """The lines of one family: its template with the numbers in, written as `number` says."""
    if number is not WHOLE:
        lines = lines.replace(WHOLE + b"\n", number + b"\n")
    block = lines % tuple(values)
    return name + block[:-1].replace(b"\n", b"\n" + name) + b"\n"


class Templates:
    """Templates of runs of series. A run has a key, and rows that say which series it has."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Sequence[Row], bytes]] = {}
        self._asked: set[Hashable] = set()

    def get(
        self, key: Hashable, names: Sequence[str], shared: Sequence[str], rows: Sequence[Row], variants: Sequence[str]
    ) -> bytes:
        """As `template`, of these arguments. `key` goes with all of them but `rows`, which must not be changed afterwards."""
        self._asked.add(key)
        known = self._kept.get(key)
        if known is not None and known[0] == rows:
            return known[1]
        made = template(names, shared, rows, variants)
        self._kept[key] = (rows, made)
        return made

    def end_scrape(self) -> None:
        """Forget what this scrape did not ask for."""
        for key in self._kept.keys() - self._asked:
            del self._kept[key]
        self._asked.clear()
