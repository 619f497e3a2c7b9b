"""The command `logsvc`: which noun is where, and what an error means for the exit code.

    0 fine · 1 failed · 2 usage · 3 the broker cannot be reached · 4 no such topic, partition or group · 5 a check failed

The module of a noun is imported when that noun is typed, so that `logsvc serve` does not wait for what `logsvc bench` needs.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import logsvc
from logsvc.cli.exits import UNREACHABLE, exit_code
from logsvc_common.errors import LogsvcError

# In the order of `logsvc --help`. Each is a module of this package with `app`.
NOUNS = ("serve", "topic", "produce", "consume", "group", "dlq", "quota", "top", "verify", "dashboards", "bench", "demo")


class _Commands(Mapping[str, Any]):
    """The commands by name, each imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in NOUNS:
            raise KeyError(name)
        command = get_command(import_module(f"logsvc.cli.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(NOUNS)

    def __len__(self) -> int:
        return len(NOUNS)


class _Nouns(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]


app = typer.Typer(cls=_Nouns, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"logsvc {logsvc.__version__}")
        raise typer.Exit


@app.callback()
def logsvc_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A durable partitioned log with consumer groups, retries and dead letters.

    \b
    Begin here:
      logsvc demo                              the whole thing on a small log, in a second
      logsvc serve                             run a broker on this machine
      logsvc topic create orders --partitions 4
      echo hello | logsvc produce orders
      logsvc consume orders -o start -e

    Exit codes: 0 fine, 1 failed, 2 usage, 3 broker unreachable, 4 not found, 5 check failed.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit the process with its code."""
    try:
        app(list(arguments) if arguments is not None else None, prog_name="logsvc")
    except LogsvcError as error:
        _drop_unread_output()
        code = exit_code(error)
        print(f"logsvc: {error.message}", file=sys.stderr)
        if code == UNREACHABLE:
            print(
                "`logsvc serve` starts a broker; --server or LOGSVC_SERVER says where one is.",
                file=sys.stderr,
            )
        sys.exit(code)
    except SystemExit:
        _drop_unread_output()
        raise


def _drop_unread_output() -> None:
    """Flush stdout; when its reader has left (`| head`), point it at nothing so that Python's own last flush keeps quiet."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
