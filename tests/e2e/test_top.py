"""`logsvc top` against a real broker with a web server's log in it: in a real terminal, and in a pipe."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logsvc.cli import demo
from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, RetryPolicy
from tests.e2e.cli_runner import InProcess
from tests.e2e.terminal import Terminal, terminal

REAL_LOG = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasa_access_log_aug95_1930.log"
TOP = shlex.join([sys.executable, "-m", "logsvc.cli.main", "top", "--interval", "0.2"])
SPARKS = re.compile("[▁▂▃▄▅▆▇█]{2,}")
COLOUR = re.compile(r"\x1b\[(?:[0-9]*;)*(?:3[1-7]|9[0-7])[;m]")


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    """It holds the log, handled by the group of the demo; the group `late` has read a part and left."""
    with broker_process() as running:
        report = demo.run(running.server, REAL_LOG if REAL_LOG.exists() else None)
        assert report.problems == []
        with Consumer(demo.TOPIC, group_id="late", server=running.server, auto_offset_reset="earliest") as consumer:
            while not consumer.poll(500, max_records=100):
                pass
            consumer.commit()
        yield running


@contextmanager
def shell(broker: BrokerProcess, columns: int, rows: int, **variables: str) -> Iterator[Terminal]:
    with terminal(columns, rows, {"LOGSVC_SERVER": broker.server} | variables) as window:
        yield window


def row_of(lines: list[str], name: str) -> str:
    """The one line that begins with `name`."""
    [row] = [line for line in lines if line.startswith(f"{name} ")]
    return row


def drawn(lines: list[str]) -> bool:
    """A picture of both tables, with several looks in it."""
    rows = [line for line in lines if line.startswith(("late ", f"{demo.TOPIC} "))]
    return len(rows) == 2 and all(SPARKS.search(row) for row in rows)


def is_back(window: Terminal) -> bool:
    return window.state("alternate_on") == "0" and window.state("cursor_flag") == "1"


@pytest.mark.parametrize("columns", [80, 200])
def test_it_shows_who_is_behind_and_leaves_the_terminal_as_it_was(broker: BrokerProcess, columns: int) -> None:
    with Admin(broker.server) as admin:
        lag = {group.group: group.lag for group in admin.list_groups()}
        letters = sum(part.end_offset - part.start_offset for part in admin.describe_topics([demo.DEAD_LETTERS])[0].partitions)
    assert lag["late"] > 0
    with shell(broker, columns, 30) as window:
        window.type("stty -g > before; echo what was there")
        window.wait_for(lambda lines: "what was there" in lines)
        window.type(f"{TOP}; echo code=$?; stty -g | cmp - before && echo same")
        lines = window.wait_for(drawn)

        assert window.state("alternate_on") == "1"
        assert "nobody" not in lines[1]
        assert "late" in lines[1]
        assert f"{letters} dead letters" in lines[2]
        assert " ok well; " in lines[3]
        assert f" {lag['late']:,} " in row_of(lines, "late")
        assert "no members" in row_of(lines, "late")
        assert " ok " in row_of(lines, demo.GROUP)
        assert SPARKS.search(row_of(lines, demo.TOPIC))
        assert ("FAILED BY STATE" in "\n".join(lines)) == (columns == 200)
        assert lines[29].startswith("q quit")

        window.press("q")
        after = window.wait_for(lambda lines: "same" in lines)
        assert "code=0" in after
        assert "what was there" in after
        assert is_back(window)


def test_keys_sort_help_and_resizing(broker: BrokerProcess) -> None:
    with shell(broker, 200, 40) as window:
        window.type(f"{TOP} --sort name; echo code=$?")
        lines = window.wait_for(drawn)
        names = [line.split()[0] for line in lines if line.startswith(("demo ", "late "))]
        assert names == ["demo", "late"]

        window.press("s", "s", "s")
        window.wait_for(lambda lines: "by lag" in lines[0])
        window.press("?")
        window.wait_for("PgUp PgDn")
        window.press("?", "p")
        window.wait_for(lambda lines: "PAUSED" in lines[0])
        window.press("p")

        window.resize(60, 12)
        window.wait_for(lambda lines: lines[11].startswith("q quit") and any(line.startswith("late ") for line in lines))
        window.press("Tab")
        window.wait_for(lambda lines: any(line.startswith("TOPIC") for line in lines))
        window.resize(120, 30)
        window.wait_for(lambda lines: lines[29].startswith("q quit") and "MEMBERS" in "".join(lines))
        window.press("q")
        window.wait_for("code=0")


def test_ctrl_c_and_a_signal_give_the_terminal_back(broker: BrokerProcess) -> None:
    with shell(broker, 80, 24) as window:
        window.type(f"{TOP}; echo code=$?")
        window.wait_for(drawn)
        window.press("C-c")
        window.wait_for("code=130")
        assert is_back(window)

        window.type(f"clear; sh -c 'echo $$ > pid; exec {TOP}'; echo code=$?")
        window.wait_for(drawn)
        pid = Path(window.state("pane_current_path"), "pid")
        os.kill(int(pid.read_text()), 15)
        window.wait_for("code=143")
        assert is_back(window)


def test_stopped_by_ctrl_z_and_continued(broker: BrokerProcess) -> None:
    with shell(broker, 80, 24) as window:
        window.type(f"{TOP}; echo code=$?")
        window.wait_for(drawn)
        window.press("C-z")
        window.wait_for("Stopped")
        assert is_back(window)
        window.type("fg")
        window.wait_for(drawn)
        window.press("q")
        window.wait_for(lambda _: is_back(window))


def test_a_broker_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with broker_process(tmp_path) as own:
        demo.run(own.server, None)
        with shell(own, 100, 24) as window:
            window.type(f"{TOP}; echo code=$?")
            window.wait_for(" ok well; ")
            own.kill()
            lines = window.wait_for("no answer for ")
            assert row_of(lines, demo.GROUP), "what was seen last stays"
            own.start()
            window.wait_for("restarted ")
            window.wait_for(" ok well; ")
            window.press("q")
            window.wait_for("code=0")


def test_no_color_means_none(broker: BrokerProcess) -> None:
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with shell(broker, 80, 24, **variables) as window:
            window.type(TOP)
            window.wait_for(drawn)
            assert bool(COLOUR.search("\n".join(window.screen(escapes=True)))) == coloured
            window.press("q")


def test_with_iterations_it_ends_and_the_last_look_stays(broker: BrokerProcess) -> None:
    with shell(broker, 80, 40) as window:
        window.type(f"{TOP} --iterations 2; echo code=$?")
        lines = window.wait_for("code=0")
        assert row_of(lines, "late")
        assert is_back(window)


def test_a_pipe_gets_an_object_for_every_look(logsvc: InProcess) -> None:
    outcome = logsvc("top", "--format", "json", "--iterations", "2", "--interval", "0.1", "--group", "^(late|demo)$")
    assert outcome.code == 0
    first, second = outcome.documents
    listed = {group["group"]: group for group in logsvc.json("group", "list")}
    for group in second["groups"]:
        assert group["lag"] == listed[group["group"]]["lag"]
        assert group["members"] == listed[group["group"]]["members"]
    assert [group["group"] for group in second["groups"]] == ["late", "demo"]
    assert first["groups"][0]["consumed_records_per_s"] is None
    assert second["groups"][0]["consumed_records_per_s"] == 0.0
    assert second["groups"][0]["health"] == "no members"
    assert second["broker"]["not_online"] == []
    topics = {topic["topic"]: topic for topic in second["topics"]}
    assert topics[demo.DEAD_LETTERS]["records"] == second["broker"]["dead_letters"] > 0


def test_a_listing_is_the_sum_of_a_description(broker: BrokerProcess) -> None:
    later = RetryPolicy(initial_ms=600_000, max_ms=600_000)
    with (
        Admin(broker.server) as admin,
        Consumer(demo.TOPIC, group_id="flaky", server=broker.server, auto_offset_reset="earliest", retry=later) as consumer,
    ):
        while not (records := consumer.poll(500, max_records=20)):
            pass
        for record in records[:3]:
            consumer.fail(record, "no")
        consumer.commit()
        [listed] = [group for group in admin.list_groups() if group.group == "flaky"]
        described = admin.describe_group("flaky").partitions
    assert listed.failed_states["waiting"] == 3
    assert sum(listed.failed_states.values()) == listed.failed == sum(sum(part.failed.values()) for part in described)
    assert listed.lag == sum(part.lag for part in described) > 0
    assert listed.position == sum(max(part.committed, part.start_offset) for part in described) > 0
    assert 0 < listed.lag_ms <= max(part.lag_ms for part in described)


def test_a_pipe_gets_tables_of_what_matches(logsvc: InProcess) -> None:
    outcome = logsvc("top", "--iterations", "1", "--group", "^la", "--topic", "^access")
    assert outcome.code == 0
    lines = outcome.out.decode().splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == ["GROUP", "late", "TOPIC", demo.TOPIC]


def test_what_cannot_be(logsvc: InProcess) -> None:
    assert logsvc("top", "--group", "(").code == 2
    assert logsvc("top", "--interval", "0").code == 2
    assert logsvc("top", "--sort", "colour").code == 2


def test_no_broker(alone: InProcess) -> None:
    outcome = alone("top", "--iterations", "1")
    assert outcome.code == 3
    assert "logsvc serve" in outcome.err


def test_describe_draws_bars_for_a_person_and_none_for_a_pipe(broker: BrokerProcess, logsvc: InProcess) -> None:
    describe = shlex.join([sys.executable, "-m", "logsvc.cli.main", "group", "describe", "late"])
    with shell(broker, 120, 30) as window:
        window.type(f"{describe}; echo code=$?")
        lines = window.wait_for("code=0")
        assert sum("█" in line for line in lines if line.strip().startswith(demo.TOPIC)) == demo.PARTITIONS
    assert "█" not in logsvc("group", "describe", "late").out.decode()
