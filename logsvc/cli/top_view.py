"""How `logsvc top` looks: an Overview becomes lines of rich Text for a screen of any size. Pure.

Every line is laid out here, cell by cell, so that none is wider than the screen and no row takes two lines: columns have a
priority, and those that do not fit are left out, the least important first. The name takes what is left of a line up to its
length, the sparkline what is left after that. When both tables do not fit the height, only the one in focus is shown.

Colour repeats what a word says already; nothing is lost without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import wrap
from typing import Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text

from logsvc.cli.drawing import UNICODE, Glyphs, fitted, padded, short_age, short_count, sparkline
from logsvc.cli.output import human_bytes, safe
from logsvc.cli.top_answers import Answer, Status, answers
from logsvc.cli.top_keys import HELP, Screen
from logsvc.cli.top_model import HISTORY_SAMPLES_MAX, ONLINE, BrokerRow, GroupRow, Order, Overview, Severity, TopicRow

RowT = TypeVar("RowT")

NAME_SHARE = 0.3  # of a line, before the first column is left out
NAME_CELLS_MAX = 60
SPARK_CELLS_MIN = 10
SPARK_CELLS_WANTED = 30  # before columns are shown that are good to have
WIDE_CELLS = 100  # from here on columns stand two cells apart
HEAD_HEIGHT_MIN = 9  # below, the answers are left out
BLANK_HEIGHT_MIN = 18  # below, nothing is spent on blank lines
BOTH_TABLES_ROWS_MIN = 8

_MEANINGS = (
    "BEHIND: age of the first record not consumed.",
    "FAILED: records to be tried again, parked or paused; LETTERS: what the dead-letter topics hold.",
    "DONE IN: at the pace of the last seconds.",
    "TREND: from 0 to its own highest value; a lag that stays above half of that fills the upper half.",
)

_STYLE = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.BAD: "bold red"}


Cell = tuple[str, str]  # text and style


@dataclass(frozen=True, slots=True)
class Column(Generic[RowT]):
    """`cell` gives a row's text and style. `cells_min` keeps a column from jumping while its numbers grow. The column whose
    `order` is the one sorted by is marked."""

    title: str
    cell: Callable[[RowT], Cell]
    right: bool = True
    cells_min: int = 0
    cells_max: int = 24
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Table(Generic[RowT]):
    """A table: the name, a sparkline that comes behind `spark_after` of the columns, and these columns, the most important
    first. They are shown in that order; those from `extra_from` on only beside a sparkline that is long enough."""

    title: str
    name: Callable[[RowT], Cell]
    spark_title: str
    spark_zoom: bool
    spark: Callable[[RowT], Sequence[float | None]]
    spark_after: int
    extra_from: int
    columns: tuple[Column[RowT], ...]


def _quiet(text: str, quiet: bool) -> Cell:
    return text, "dim" if quiet else ""


def _rate(rate: float | None) -> Cell:
    return _quiet("-" if rate is None else short_count(rate), not rate)


def _behind(row: GroupRow) -> Cell:
    return short_age(row.lag_ms), "dim" if not row.lag_ms else _STYLE[Severity.WARNING] if row.is_behind else ""


def _catch_up(row: GroupRow) -> Cell:
    return _quiet("-" if row.catch_up_s is None else short_age(row.catch_up_s * 1_000), not row.lag)


def _by_state(failed: GroupRow) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in failed.failed.items()) or "-"


GROUPS: Table[GroupRow] = Table(
    title="GROUP",
    name=lambda row: (row.group, "bold"),
    spark_title="LAG TREND",
    spark_zoom=True,
    spark=lambda row: row.lags,
    spark_after=5,
    extra_from=7,
    columns=(
        Column("HEALTH", lambda row: (row.verdict, _STYLE[row.severity]), right=False, cells_min=12),
        Column("LAG", lambda row: _quiet(short_count(row.lag), not row.lag), cells_min=6, order=Order.LAG),
        Column("BEHIND", _behind, cells_min=6),
        Column("REC/S", lambda row: _rate(row.rate_per_s), cells_min=6, order=Order.RATE),
        Column(
            "FAILED",
            lambda row: (short_count(row.failed_total), _STYLE[Severity.WARNING] if row.failed_total else "dim"),
            cells_min=6,
            order=Order.FAILED,
        ),
        Column("LETTERS", lambda row: _quiet(short_count(row.dead_letters), not row.dead_letters), cells_min=7),
        Column("MEMBERS", lambda row: _quiet(short_count(row.members), not row.members), cells_min=7),
        Column("STATE", lambda row: _quiet(row.state, True), right=False, cells_min=6),
        Column("BREAKER", lambda row: _quiet(row.breaker, row.breaker in ("closed", "off")), right=False, cells_min=7),
        Column("DONE IN", _catch_up, cells_min=7),
        Column("FAILED BY STATE", lambda row: _quiet(_by_state(row), not row.failed), right=False, cells_max=40),
        Column("TOPICS", lambda row: _quiet(", ".join(row.topics) or "-", True), right=False, cells_max=40),
    ),
)

TOPICS: Table[TopicRow] = Table(
    title="TOPIC",
    name=lambda row: (row.topic, "yellow" if row.dead_letters and row.records else "bold"),
    spark_title="RATE TREND",
    spark_zoom=False,
    spark=lambda row: row.rates,
    spark_after=4,
    extra_from=5,
    columns=(
        Column(
            "STATE", lambda row: (row.state, "dim" if row.state == ONLINE else _STYLE[Severity.BAD]), right=False, cells_min=12
        ),
        Column("REC/S", lambda row: _rate(row.rate_per_s), cells_min=6, order=Order.RATE),
        Column("SIZE", lambda row: _quiet(human_bytes(row.size_bytes), not row.size_bytes), cells_min=9),
        Column("RECORDS", lambda row: _quiet(short_count(row.records), not row.records), cells_min=7),
        Column("PARTS", lambda row: (short_count(row.partitions), ""), cells_min=5),
    ),
)


def frame(overview: Overview, screen: Screen, status: Status, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[Text]:
    """The whole screen: exactly `height` lines, none of more than `width` cells."""
    pen = _Pen(width, glyphs)
    roomy = height >= BLANK_HEIGHT_MIN
    lines = [pen.title(overview.broker, screen, status)]
    if height >= HEAD_HEIGHT_MIN:
        lines += [pen.answer(answer) for answer in answers(overview, status, paused=screen.paused)]
    foot = [pen.foot(screen)] if height >= HEAD_HEIGHT_MIN else []
    if roomy:
        lines.append(Text())
    room = height - len(lines) - len(foot)
    lines += pen.help(room) if screen.help else _tables(overview, screen, pen, room, blank=roomy)
    lines = lines[: height - len(foot)]
    return lines + [Text()] * (height - len(lines) - len(foot)) + foot


def _tables(overview: Overview, screen: Screen, pen: "_Pen", room: int, *, blank: bool) -> list[Text]:
    def groups(rows: int) -> list[Text]:
        return pen.table(GROUPS, overview.groups, screen.offsets[0], rows, screen.order, focus=screen.focus == 0)

    def topics(rows: int) -> list[Text]:
        return pen.table(TOPICS, overview.topics, screen.offsets[1], rows, screen.order, focus=screen.focus == 1)

    rows = room - 2 - blank  # two headings, and what is between the tables
    if rows < BOTH_TABLES_ROWS_MIN:
        return (topics if screen.focus else groups)(room - 1)
    for_groups = min(max(1, len(overview.groups)), max(rows - max(1, len(overview.topics)), (rows + 1) // 2))
    return groups(for_groups) + [Text()] * blank + topics(rows - for_groups)


class _Pen:
    """Draws lines of one width."""

    def __init__(self, width: int, glyphs: Glyphs) -> None:
        self._width = width
        self._glyphs = glyphs
        self._gap = 2 if width >= WIDE_CELLS else 1

    def _line(self, *cells: Cell) -> Text:
        """Cells one after the other, cut where the screen ends."""
        line, left = Text(no_wrap=True, overflow="crop", end=""), self._width
        for text, style in cells:
            text = fitted(text, left, self._glyphs)
            line.append(text, style or None)
            left -= cell_len(text)
        return line

    def title(self, broker: BrokerRow, screen: Screen, status: Status) -> Text:
        """Who is asked, and how the screen is set."""
        clock = datetime.fromtimestamp(broker.wall_ms / 1_000, UTC).strftime("%H:%M:%SZ")
        late = status.is_late(broker)
        how = "PAUSED" if screen.paused else "LATE" if late else f"every {status.interval_s:.3g} s"
        dot = f" {self._glyphs.dot} "
        right = f"{how}{dot}by {screen.order}{dot}{clock}"
        left = f"{broker.software}  {status.server}"
        space = self._width - cell_len(safe(left)) - cell_len(right)
        if space < 2:
            left, space = broker.software, max(2, self._width - cell_len(safe(broker.software)) - cell_len(right))
        return self._line((left, "bold"), (" " * space, ""), (right, "bold red" if screen.paused or late else "dim"))

    def answer(self, answer: Answer) -> Text:
        """A question, a mark that says how bad it is without colour, and the answer."""
        mark = {Severity.OK: "ok", Severity.WARNING: "!", Severity.BAD: "!!"}[answer.severity]
        words = answer.text(self._width - 11)
        return self._line((f"{answer.question:<8}", "dim"), (f"{mark:<3}", _STYLE[answer.severity]), (words, ""))

    def foot(self, screen: Screen) -> Text:
        """The keys."""
        if screen.help:
            return self._line(("?", "bold"), (" back  ", "dim"), ("q", "bold"), (" quit", "dim"))
        pause = " go on  " if screen.paused else " pause  "
        known = (("q", " quit  "), ("s", " sort  "), ("p", pause), ("Tab", " table  "), ("arrows", " scroll  "), ("?", " help"))
        return self._line(*(cell for key, what in known for cell in ((key, "bold"), (what, "dim"))))

    def help(self, room: int) -> list[Text]:
        """What the keys do, and what the words mean."""
        lines = [self._line((padded(key, 11), "bold"), (what, "")) for key, what in HELP]
        words = [line for meaning in _MEANINGS for line in wrap(meaning, max(1, self._width), subsequent_indent="  ")]
        return [*lines, Text(), *(self._line((line, "dim")) for line in words)][: max(0, room)]

    def table(
        self, table: Table[RowT], rows: Sequence[RowT], offset: int, room: int, order: Order, *, focus: bool
    ) -> list[Text]:
        """A heading and at most `room` rows, from `offset` on or from where the last ones are seen."""
        if room < 1:
            return []
        offset = max(0, min(offset, len(rows) - room))
        shown = rows[offset : offset + room]
        title = table.title
        if len(rows) > room:
            title += f" {offset + 1}-{offset + len(shown)} of {len(rows)}"
        layout = _lay_out(table, rows, self._width, self._gap, len(title))
        heading = self._line(*self._heading(table, title, layout, order))
        heading.stylize("bold reverse" if focus else "reverse")
        if not rows:
            return [heading, self._line(("none", "dim"))]
        return [heading, *(self._line(*self._row(table, row, layout)) for row in shown)]

    def _heading(self, table: Table[RowT], title: str, layout: "_Layout", order: Order) -> list[Cell]:
        marked = title + (self._glyphs.down if order is Order.NAME and cell_len(title) < layout.name else "")
        cells: list[Cell] = [(padded(marked, layout.name, glyphs=self._glyphs), "")]
        for index, width in enumerate(layout.columns):
            column = table.columns[index]
            if index == table.spark_after:
                cells += self._spark_cell(table.spark_title, layout, heading=True)
            mark = self._glyphs.down if column.order is order else ""
            cells.append((" " * self._gap + padded(mark + column.title, width, right=column.right, glyphs=self._glyphs), ""))
        if len(layout.columns) <= table.spark_after:
            cells += self._spark_cell(table.spark_title, layout, heading=True)
        used = sum(cell_len(text) for text, _ in cells)
        return [*cells, (" " * (self._width - used), "")]

    def _row(self, table: Table[RowT], row: RowT, layout: "_Layout") -> list[Cell]:
        name, style = table.name(row)
        cells: list[Cell] = [(padded(name, layout.name, glyphs=self._glyphs), style)]
        spark = sparkline(table.spark(row), layout.spark, self._glyphs, zoom=table.spark_zoom)
        for index, width in enumerate(layout.columns):
            if index == table.spark_after:
                cells += self._spark_cell(spark, layout)
            text, style = table.columns[index].cell(row)
            right = table.columns[index].right
            cells += [(" " * self._gap, ""), (padded(text, width, right=right, glyphs=self._glyphs), style)]
        if len(layout.columns) <= table.spark_after:
            cells += self._spark_cell(spark, layout)
        return cells

    def _spark_cell(self, text: str, layout: "_Layout", *, heading: bool = False) -> list[Cell]:
        if not layout.spark:
            return []
        return [(" " * self._gap, ""), (padded(text, layout.spark, glyphs=self._glyphs), "" if heading else "cyan")]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Widths in cells: of the name, of the columns that are shown, and of the sparkline, 0 for none."""

    name: int
    columns: tuple[int, ...]
    spark: int


def _lay_out(table: Table[RowT], rows: Sequence[RowT], width: int, gap: int, title: int) -> _Layout:
    """Columns as long as they fit beside the smallest name and sparkline; then the name grows, then the sparkline."""
    name_wanted = min(NAME_CELLS_MAX, max([title + 1, *(cell_len(safe(table.name(row)[0])) for row in rows)]))
    name = min(max(int(width * NAME_SHARE), title), name_wanted, width)
    left, spark = width - name, 0
    columns: list[int] = []
    for index, column in enumerate(table.columns):
        if index == table.spark_after and left >= gap + SPARK_CELLS_MIN:
            spark, left = SPARK_CELLS_MIN, left - gap - SPARK_CELLS_MIN
        if index == table.extra_from and spark:
            longer = max(0, min(left - (name_wanted - name), SPARK_CELLS_WANTED - spark))
            spark, left = spark + longer, left - longer
        widths = [cell_len(safe(column.cell(row)[0])) for row in rows]
        wanted = min(column.cells_max, max([column.cells_min, len(column.title) + (column.order is not None), *widths]))
        if left < gap + wanted:
            break
        columns.append(wanted)
        left -= gap + wanted
    if not spark and left >= gap + SPARK_CELLS_MIN:
        spark, left = SPARK_CELLS_MIN, left - gap - SPARK_CELLS_MIN
    grown = min(left, name_wanted - name)
    more = min(left - grown, HISTORY_SAMPLES_MAX - spark) if spark else 0
    return _Layout(name + grown, tuple(columns), spark + more)
