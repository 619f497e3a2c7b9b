"""Tables on a terminal, with a bar beside the numbers of one column where there is room for it."""

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from logsvc.cli.drawing import bar, glyphs_of
from logsvc.cli.output import safe

BAR_CELLS_MIN = 4
BAR_CELLS_MAX = 16
# Between two columns of box.SIMPLE: the padding of both and the place of the line; without padding only that place.
GAP_CELLS = 3
NARROW_GAP_CELLS = 1


def drawn(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int, *, bar_of: str | None = None, encoding: str = "utf-8"
) -> Table:
    """The rows under a heading, for a terminal of `width` cells; columns of numbers keep to the right.

    Columns move together, and the bar of the column `bar_of` shrinks and then goes, before anything is folded.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else safe(str(cell)) for cell in row] for row in rows]
    natural = sum(max(cell_len(text) for text in column) for column in zip(columns, *texts, strict=True)) + 2
    wanted = BAR_CELLS_MAX if bar_of is not None else 0
    gap = GAP_CELLS if natural + GAP_CELLS * len(columns) + wanted <= width else NARROW_GAP_CELLS
    bar_cells = min(wanted, width - natural - gap * len(columns))
    barred = columns.index(bar_of) if bar_of is not None and bar_cells >= BAR_CELLS_MIN else None
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1) if gap == GAP_CELLS else (0, 0))
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        if index == barred:
            table.add_column("", no_wrap=True, width=bar_cells, style="cyan")
    bars = [] if barred is None else _bars([row[barred] for row in rows], bar_cells, encoding)
    for index, row in enumerate(texts):
        cells = [Text(text) for text in row]
        if barred is not None:
            cells.insert(barred + 1, Text(bars[index]))
        table.add_row(*cells)
    return table


def _bars(cells: Sequence[object], bar_cells: int, encoding: str) -> list[str]:
    values = [float(cell) if isinstance(cell, int | float) else 0.0 for cell in cells]
    return [bar(value, max(values), bar_cells, glyphs_of(encoding)) for value in values]
