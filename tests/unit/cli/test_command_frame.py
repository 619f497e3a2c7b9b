"""The frame of the command line: nouns found by name, exit codes by error, help with examples."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from logsvc.cli import main as frame
from logsvc.cli.connect import parse_settings
from logsvc.cli.exits import exit_code
from logsvc_common import errors

NO_EXAMPLE_NEEDED = {("topic",), ("group",), ("dlq",), ("quota",), ("dashboards",), ("bench",), ()}
VERBS = {
    "topic": ("create", "list", "describe", "alter", "delete", "trim"),
    "group": ("list", "describe", "configure", "reset", "resume", "delete"),
    "dlq": ("list", "show", "redrive", "purge"),
    "quota": ("set", "list", "remove"),
    "dashboards": ("export",),
    "bench": ("produce", "consume", "latency"),
}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        frame.main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def commands() -> Iterator[tuple[str, ...]]:
    yield ()
    for noun in frame.NOUNS:
        yield (noun,)
        yield from ((noun, verb) for verb in VERBS.get(noun, ()))


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *command, "--help")
    assert (code, err) == (0, "")
    assert command in NO_EXAMPLE_NEEDED or f"  logsvc {' '.join(command)}" in out.partition("Example")[2]


def test_the_verbs_are_those_promised_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    for noun, verbs in VERBS.items():
        _, out, _ = run(capsys, noun, "--help")
        listed = [
            line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.startswith("  ") and line[2] != " "
        ]
        assert tuple(listed) == verbs


def test_a_typing_mistake_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "topics", "list")
    assert (code, out) == (2, "")
    assert "'topic'" in err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("logsvc ")


def test_starting_a_broker_does_not_wait_for_what_other_commands_need() -> None:
    heavy = {"logsvc_client", "rich", "starlette", "uvicorn", "logsvc.cli.bench", "logsvc.cli.demo"}
    program = f"import sys, logsvc.cli.main, logsvc.cli.serve; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InternalError, 1),
        (errors.TopicExists, 1),
        (errors.RecordTooLarge, 1),
        (errors.AddressInUse, 1),
        (errors.InvalidTopicName, 2),
        (errors.InvalidConfig, 2),
        (errors.RequestTimeout, 3),
        (errors.DeliveryTimeout, 3),
        (errors.UnknownTopic, 4),
        (errors.UnknownPartition, 4),
        (errors.UnknownGroup, 4),
    ],
)
def test_the_exit_code_says_who_is_to_blame(error: type[errors.LogsvcError], code: int) -> None:
    assert exit_code(error("x")) == code


def test_settings_keep_everything_behind_the_first_equals_sign() -> None:
    assert parse_settings(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    assert parse_settings(None) == {}


@pytest.mark.parametrize("pairs", [["a"], ["=1"], ["a=1", "a=2"]])
def test_what_is_no_setting_is_refused(pairs: list[str]) -> None:
    with pytest.raises(errors.InvalidConfig):
        parse_settings(pairs)
