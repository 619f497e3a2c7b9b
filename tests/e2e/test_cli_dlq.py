"""`logsvc dlq` against a real broker: what it lists and shows, putting letters back, throwing them away."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.names import dead_letter_topic
from tests.e2e.cli_runner import Logsvc, Runner

WAIT_SECONDS = 30.0
ONCE = RetryPolicy(max_attempts=1)


def wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def consume(runner: Runner, topic: str, group: str, handle: Callable[[Record], None], enough: Callable[[], bool]) -> None:
    """Run a consumer of the group until there is enough and its failures are finished."""
    with Consumer(topic, group_id=group, server=runner.server, retry=ONCE) as consumer, Admin(runner.server) as admin:

        def settled() -> bool:
            return not any(part.failed for part in admin.describe_group(group).partitions)

        deadline = time.monotonic() + WAIT_SECONDS
        while not enough() or not settled():
            assert time.monotonic() < deadline
            for record in consumer.poll(50):
                try:
                    handle(record)
                except ValueError as error:
                    consumer.fail(record, error)
            consumer.commit()


class NoCustomer(ValueError):
    """A failure of an application."""


def make_letters(runner: Runner, topic: str, group: str, numbers: Sequence[int] = range(6)) -> str:
    """A topic whose records have all become letters of `group`: odd ones by ValueError, even ones by NoCustomer."""
    runner("topic", "create", topic, "--if-not-exists")
    with Producer(runner.server) as producer:
        for n in numbers:
            producer.send(topic, b"value %d" % n, key=b"k%d" % (n % 2), headers={"n": b"%d" % n}, timestamp_ms=1_000 + n)
    seen: set[int] = set()

    def handle(record: Record) -> None:
        seen.add(record.offset)
        raise (NoCustomer(f"no customer {record.offset}") if record.offset % 2 == 0 else ValueError("odd"))

    consume(runner, topic, group, handle, lambda: len(seen) >= len(numbers))
    return dead_letter_topic(topic, group)


def handled_again(runner: Runner, topic: str, group: str, count: int) -> list[int]:
    """The offsets the group is given, `count` of them, none twice."""
    seen: list[int] = []
    consume(runner, topic, group, lambda record: seen.append(record.offset), lambda: len(seen) >= count)
    return sorted(seen)


def listed(runner: Runner, topic: str) -> Any:
    return next(pile for pile in runner.json("dlq", "list") if pile["topic"] == topic)


class TestLooking:
    def test_list_says_whose_how_many_how_old_and_why(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "looked", "g")
        found = listed(logsvc, letters)
        assert (found["source"], found["group"], found["letters"], found["redriven"]) == ("looked", "g", 6, 0)
        assert found["oldest_ms"] <= found["newest_ms"]
        assert [(error["count"], error["kind"].rpartition(".")[2]) for error in found["errors"]] == [
            (3, "NoCustomer"),
            (3, "ValueError"),
        ]
        assert found["errors"][1]["error"] == "odd"
        text = logsvc("dlq", "list").out.decode()
        assert re.search(rf"^{letters}\tlooked\tg\t6\t0\t.*3 .*NoCustomer, 3 ValueError$", text, re.MULTILINE)

    def test_one_letter_is_shown_whole(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "shown", "g")
        found = logsvc.json("dlq", "show", letters, "0", "2")
        assert (found["offset"], found["source"]) == (
            2,
            {"topic": "shown", "partition": 0, "offset": 2, "timestamp_ms": 1_002},
        )
        assert (found["error"], found["attempts"], found["redrives"]) == ("no customer 2", 1, 0)
        assert (found["key"], found["value"], found["headers"]) == ("k0", "value 2", [{"name": "n", "value": "2"}])
        assert "NoCustomer: no customer 2" in found["stacktrace"]
        text = logsvc("dlq", "show", letters, "0", "2").out.decode()
        assert "came from    shown-0 offset 2, group g" in text
        assert "no customer 2" in text
        assert "stack trace" in text

    def test_letters_are_chosen_as_in_a_redrive(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "chosen", "g")

        def shown(*arguments: str) -> list[int]:
            outcome = logsvc("dlq", "show", letters, *arguments, "--format", "json")
            assert outcome.code == 0, outcome.err
            return [letter["offset"] for letter in outcome.documents]

        assert shown("--where", "class=NoCustomer") == [0, 2, 4]
        assert shown("--where", "class=NoCustomer", "-n", "2") == [0, 2]
        assert shown("--where", "error~CUSTOMER 4", "--where", "error=no customer 0") == []
        assert shown("--where", "offset=1-3", "--where", "offset=5") == [1, 2, 3, 5]
        assert shown("--where", "error~customer", "--where", "letter=3-") == [4]
        assert shown("--until", "2001-01-01") == []
        assert shown("-o", "-2") == [4, 5]

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("show", "orders"), 4),
            (("show", "dlq.nope.g"), 4),
            (("show", "dlq.nope.g", "0"), 2),
            (("show", "dlq.nope.g", "0", "1", "-o", "start"), 2),
            (("show", "dlq.nope.g", "--where", "colour=red"), 2),
            (("show", "dlq.nope.g", "--where", "offset=9-1"), 2),
            (("show", "dlq.nope.g", "--since", "soon"), 2),
            (("redrive",), 2),
            (("redrive", "nobody"), 4),
            (("redrive", "dlq.nope.g"), 4),
            (("redrive", "g", "--cancel", "1"), 2),
            (("redrive", "--cancel", "999999"), 4),
            (("redrive", "g", "--rate", "-1"), 2),
            (("purge", "dlq.nope.g"), 4),
            (("purge", "dlq.nope.g", "--yes"), 4),
            (("purge", "orders", "--yes"), 4),
        ],
    )
    def test_what_cannot_be_meant_says_so(self, logsvc: Runner, arguments: tuple[str, ...], code: int) -> None:
        outcome = logsvc("dlq", *arguments)
        assert (outcome.code, outcome.out) == (code, b"")
        assert outcome.err
        assert "Traceback" not in outcome.err

    def test_a_letter_that_is_not_there_is_not_found(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "absent", "g", range(2))
        assert logsvc("dlq", "show", letters, "0", "2").code == 4
        assert logsvc("dlq", "show", letters, "1", "0").code == 4


class TestRedriving:
    def test_a_dry_run_counts_and_changes_nothing(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "tried", "tried")
        found = logsvc.json("dlq", "redrive", "tried", "--where", "class=NoCustomer", "--dry-run")
        assert (found["state"], found["total"], found["matched"], found["redriven"]) == ("done", 6, 3, 0)
        assert (
            b"dry run: 3 of 6 letters would go back to tried"
            in logsvc("dlq", "redrive", letters, "--where", "class=NoCustomer", "--dry-run").out
        )
        assert listed(logsvc, letters)["redriven"] == 0

    def test_letters_go_back_to_their_group_once(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "again", "again")
        found = logsvc.json("dlq", "redrive", "again", "--where", "class=NoCustomer", "--follow")
        assert (found["state"], found["redriven"]) == ("done", 3)
        assert handled_again(logsvc, "again", "again", 3) == [0, 2, 4]
        assert listed(logsvc, letters)["redriven"] == 3
        assert logsvc.json("dlq", "redrive", letters, "--follow")["redriven"] == 3
        assert handled_again(logsvc, "again", "again", 3) == [1, 3, 5]
        assert logsvc.json("dlq", "redrive", letters, "--follow")["redriven"] == 0

    def test_without_following_it_goes_on_and_can_be_listed_and_cancelled(self, logsvc: Runner) -> None:
        make_letters(logsvc, "slow", "slow")
        begun = logsvc("dlq", "redrive", "slow", "--rate", "1", "--limit", "5")
        assert begun.code == 0
        number = re.search(rb"^redrive (\d+) running: ", begun.out)
        assert number is not None
        assert f"--cancel {int(number[1])}" in begun.err
        [found] = logsvc.json("dlq", "redrive", "slow", "--list")
        assert (found["redrive_id"], found["state"], found["rate_per_s"], found["limit"]) == (int(number[1]), "running", 1, 5)
        cancelled = logsvc.json("dlq", "redrive", "--cancel", number[1].decode())
        assert cancelled["state"] == "cancelled"
        assert cancelled["redriven"] < 5
        table = logsvc("dlq", "redrive", "--list").out.decode()
        assert re.search(rf"^{int(number[1])}\tslow\tslow\tcancelled\t6\t", table, re.MULTILINE)

    def test_a_group_with_letters_of_several_topics_must_say_which(self, logsvc: Runner) -> None:
        make_letters(logsvc, "one", "both", range(1))
        make_letters(logsvc, "two", "both", range(2))
        refused = logsvc("dlq", "redrive", "both")
        assert refused.code == 1
        assert "one, two" in refused.err
        assert logsvc.json("dlq", "redrive", "both", "--topic", "two", "--follow")["redriven"] == 2
        assert logsvc.json("dlq", "redrive", "dlq.one.both", "--follow")["redriven"] == 1

    def test_interrupting_who_waits_leaves_the_redrive_running(self, logsvc: Runner, command: Logsvc) -> None:
        make_letters(logsvc, "left", "left")
        with command.start("dlq", "redrive", "left", "--rate", "1", "--follow") as process:
            wait(lambda: any(found["redriven"] for found in logsvc.json("dlq", "redrive", "left", "--list")))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_SECONDS)
        [found] = logsvc.json("dlq", "redrive", "left", "--list")
        assert (process.returncode, out, found["state"]) == (130, b"", "running")
        assert f"logsvc dlq redrive --cancel {found['redrive_id']}".encode() in err
        logsvc("dlq", "redrive", "--cancel", str(found["redrive_id"]))

    def test_who_waits_for_a_redrive_that_is_cancelled_fails(self, logsvc: Runner, command: Logsvc) -> None:
        make_letters(logsvc, "ended", "ended")
        with command.start("dlq", "redrive", "ended", "--rate", "1", "--follow") as process:
            wait(lambda: bool(logsvc.json("dlq", "redrive", "ended", "--list")))
            [found] = logsvc.json("dlq", "redrive", "ended", "--list")
            logsvc("dlq", "redrive", "--cancel", str(found["redrive_id"]))
            out, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 1
        assert b"cancelled" in out

    def test_a_person_at_a_terminal_sees_it_to_its_end(self, logsvc: Runner, command: Logsvc) -> None:
        make_letters(logsvc, "seen", "seen")
        primary, secondary = pty.openpty()
        arguments = [sys.executable, "-m", "logsvc.cli.main", "dlq", "redrive", "seen", "--rate", "10"]
        with subprocess.Popen(arguments, env=command.environment, stdout=subprocess.PIPE, stderr=secondary) as process:
            os.close(secondary)
            out, _ = process.communicate(timeout=WAIT_SECONDS)
        seen = os.read(primary, 1 << 16)
        os.close(primary)
        assert b"redrive" in seen
        assert b"dlq.seen.seen" in seen
        assert re.match(rb"redrive \d+ done: 6 of 6 letters put back for seen", out)


class TestPurging:
    def test_without_yes_nothing_is_removed(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "kept", "kept")
        refused = logsvc("dlq", "purge", letters)
        assert (refused.code, refused.out) == (2, b"")
        assert "6 letters" in refused.err
        assert listed(logsvc, letters)["letters"] == 6

    def test_purged_letters_are_gone(self, logsvc: Runner) -> None:
        letters = make_letters(logsvc, "gone", "gone")
        logsvc("dlq", "redrive", "gone", "--limit", "2", "--follow")
        assert logsvc.json("dlq", "purge", letters, "--yes") == {"topic": letters, "purged": 6}
        found = listed(logsvc, letters)
        assert (found["letters"], found["redriven"], found["oldest_ms"]) == (0, 0, None)
        assert logsvc("dlq", "show", letters).out == b""
        assert logsvc.json("dlq", "redrive", "gone", "--follow")["total"] == 0
        # What was put back before is still handled, from the topic itself.
        assert handled_again(logsvc, "gone", "gone", 2) == [0, 1]
