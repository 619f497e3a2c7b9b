"""How `logsvc top` looks: every size of screen, every name, every key."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from logsvc.cli.drawing import ASCII, UNICODE, Glyphs
from logsvc.cli.top_answers import Status, answers
from logsvc.cli.top_keys import Screen, keys
from logsvc.cli.top_model import BEHIND_MS, History, Order, Overview, Severity
from logsvc.cli.top_view import frame
from tests.unit.cli.top_samples import group, sample, topic

STATUS = Status("tcp://127.0.0.1:9292", 1.0, 9.0)
WIDTHS = [40, 80, 120, 200]


def overview(groups: int = 3, topics: int = 4) -> Overview:
    history = History()
    for second in range(10):
        listings = [
            group(f"group-{number:03d}", lag=number * 1_000 * second, lag_ms=number * 1_000, position=second * 10**number)
            for number in range(groups)
        ]
        history.add(sample(second, listings, [topic(f"topic-{number:03d}", number * second, 1) for number in range(topics)]))
    seen = history.overview(Order.NAME)
    assert seen is not None
    return seen


def texts(
    seen: Overview, width: int, height: int, screen: Screen | None = None, status: Status = STATUS, glyphs: Glyphs = UNICODE
) -> list[str]:
    lines = frame(seen, screen or Screen(order=Order.NAME), status, width, height, glyphs)
    assert len(lines) == height
    assert all(isinstance(line, Text) and cell_len(line.plain) <= width for line in lines)
    return [line.plain for line in lines]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("height", [1, 2, 5, 8, 9, 12, 17, 18, 24, 60])
@pytest.mark.parametrize("screen", [Screen(), Screen(focus=1, offsets=(50, 50)), Screen(help=True)])
def test_every_screen_is_filled_and_no_line_is_too_long(width: int, height: int, screen: Screen) -> None:
    for seen in (overview(0, 0), overview(3, 4), overview(30, 100)):
        texts(seen, width, height, screen)


def test_columns_go_the_least_important_first() -> None:
    headings = {width: next(line for line in texts(overview(), width, 30) if line.startswith("GROUP")) for width in WIDTHS}
    titles = ["HEALTH", "LAG", "BEHIND", "REC/S", "FAILED", "LAG TREND", "LETTERS", "MEMBERS", "STATE", "BREAKER", "TOPICS"]
    shown = {width: [title for title in titles if title in heading] for width, heading in headings.items()}
    assert shown[200] == titles
    assert shown[120] == titles[:9]
    assert shown[80] == titles[:8]
    assert shown[40] == titles[:3]


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_a_row_has_the_lag_its_age_and_a_sparkline(width: int) -> None:
    [row] = [line for line in texts(overview(), width, 30) if line.startswith("group-002")]
    assert " 18,000 " in row
    assert " 2.0s " in row
    assert "▁▂▃▃▄▅▆▆▇█" in row


def test_a_terminal_without_unicode_gets_ascii_only() -> None:
    assert all(line.isascii() for line in texts(overview(), 120, 30, glyphs=ASCII))


def test_a_low_screen_shows_the_table_in_focus() -> None:
    low = texts(overview(30, 30), 80, 12)
    assert sum(line.startswith("group-") for line in low) == 6
    assert not any(line.startswith("topic-") for line in low)
    low = texts(overview(30, 30), 80, 12, Screen(focus=1))
    assert sum(line.startswith("topic-") for line in low) == 6


def test_more_rows_than_the_screen_are_scrolled() -> None:
    screen = Screen(order=Order.NAME)
    lines = texts(overview(30, 2), 80, 20, screen)
    assert any(line.startswith("GROUP 1-9 of 30") for line in lines)
    for _ in range(3):
        screen = screen.press("page down", (30, 2))
    lines = texts(overview(30, 2), 80, 20, screen)
    assert any(line.startswith("GROUP 22-30 of 30") for line in lines)
    assert any(line.startswith("group-029") for line in lines)
    assert any(line.startswith("topic-001") for line in lines)
    lines = texts(overview(4, 2), 80, 20, screen)
    assert sum(line.startswith("group-") for line in lines) == 4, "a shorter list is seen whole"


HOSTILE = ["[red]x[/red]", "[/]", "a\x1b]0;title\x07", "a\nb", "日本語" * 30, "x" * 249, "e\u0301" * 60, "\u202e", "👨‍👩‍👧", ""]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_name_is_data(name: str, width: int) -> None:
    history = History()
    for second in range(2):
        history.add(
            sample(
                second,
                [group(name, lag=9, lag_ms=BEHIND_MS, failed={name: 3}, breaker="open", topics=[name])],
                [topic(name, 5, state="failed")],
            )
        )
    seen = history.overview()
    assert seen is not None
    for line in texts(seen, width, 30, status=Status(name, 1.0, 1.0)) + texts(seen, width, 30, status=Status("x", 1, 9, name)):
        assert line.isprintable()
    if len(name) < 13 and name.isprintable():
        assert any(line.startswith(f"{name} ") for line in texts(seen, width, 30))


class TestAnswers:
    def test_all_is_well(self) -> None:
        history = History()
        history.add(sample(9, [group(lag=5, lag_ms=20)], [topic("orders", 5)]))
        seen = history.overview()
        assert seen is not None
        told = answers(seen, STATUS)
        assert [answer.severity for answer in told] == [Severity.OK] * 3
        assert [answer.text(80) for answer in told] == [
            "nobody; 1 group",
            "nothing now; no dead letters",
            "well; 1 partition, 500 B",
        ]

    def test_all_is_not(self) -> None:
        history = History()
        listings = [
            group("slow", lag=7, lag_ms=60_000),
            group("gone", lag=5, lag_ms=90_000, members=0),
            group("flaky", failed={"waiting": 3, "parked": 2}),
            group("flooded", breaker="open"),
        ]
        history.add(sample(8, listings, [topic("orders", 5, 6, state="failed"), topic("dlq.orders.slow", 4)]))
        history.add(sample(9, listings, [topic("orders", 5, 6, state="failed"), topic("dlq.orders.slow", 4)], broker_id="c"))
        seen = history.overview()
        assert seen is not None
        behind, failing, broker = answers(seen, STATUS)
        assert behind.text(80) == "2 of 4 groups: gone 90.0s; slow 60.0s"
        assert behind.severity is Severity.BAD
        assert failing.text(80) == "flooded breaker open; flaky 2 parked, 3 waiting; 4 dead letters"
        assert failing.text(40) == "flooded breaker open; +1 more; 4 dead letters"
        assert failing.severity is Severity.BAD
        assert broker.text(120).startswith("2 not online: orders-0 failed; orders-1 failed; 3 partitions, ")
        assert "restarted 0 ago" in broker.text(120)

    def test_a_broker_that_is_gone_and_one_that_is_late(self) -> None:
        seen = overview()
        *_, gone = answers(seen, Status("x", 1.0, 21.0, "no broker at x"))
        assert gone.text(80) == "no answer for 12.0s: no broker at x"
        *_, late = answers(seen, Status("x", 1.0, 13.0))
        assert late.text(80) == "no answer for 4.0s"
        *_, paused = answers(seen, Status("x", 1.0, 999.0), paused=True)
        assert paused.severity is Severity.OK
        assert "LATE" in texts(seen, 80, 30, status=Status("x", 1.0, 13.0))[0]
        assert "PAUSED" in texts(seen, 80, 30, Screen(paused=True), Status("x", 1.0, 13.0))[0]


class TestKeys:
    def test_arrows_in_both_dialects_and_plain_keys(self) -> None:
        assert keys(b"\x1b[A\x1bOBq\x1b[5~\x1b[6~\t?") == ["up", "down", "q", "page up", "page down", "tab", "?"]

    def test_what_is_not_known_is_left_out(self) -> None:
        assert keys(b"\x1b[200~\x1b[1;5C\xc3\xa9\x00\x1b[") == []
        assert keys(b"\x1b") == ["escape"]

    @given(st.binary(max_size=200))
    def test_anything_may_be_typed(self, data: bytes) -> None:
        screen = Screen()
        for key in keys(data):
            screen = screen.press(key, (5, 0))
            assert 0 <= screen.offsets[0] < 5
            assert screen.offsets[1] == 0

    def test_what_keys_do(self) -> None:
        screen = Screen()
        assert screen.press("q", (0, 0)).quit
        assert [screen := screen.press("s", (9, 9)) for _ in range(4)][-1].order is Order.LAG
        assert screen.press("p", (0, 0)).paused
        assert not screen.press("p", (0, 0)).press("p", (0, 0)).paused
        assert screen.press("?", (0, 0)).help
        assert not screen.press("?", (0, 0)).press("escape", (0, 0)).help
        assert screen.press("tab", (9, 9)).press("down", (9, 9)).offsets == (0, 1)
        assert screen.press("end", (9, 9)).offsets == (8, 0)
        assert screen.press("end", (9, 9)).press("home", (9, 9)).offsets == (0, 0)


@settings(max_examples=60)
@given(
    st.text(max_size=40),
    st.integers(1, 220),
    st.integers(1, 60),
    st.builds(Screen, st.sampled_from(Order), st.booleans(), st.booleans(), st.integers(0, 1)),
)
def test_any_screen_of_any_size(name: str, width: int, height: int, screen: Screen) -> None:
    history = History()
    history.add(sample(0, [group(name, lag=1 << 60, lag_ms=1 << 60, failed={name: 1 << 60})], [topic(name, 1 << 60)]))
    seen = history.overview()
    assert seen is not None
    texts(seen, width, height, screen)
