"""How commands are made, the same for all: plain help that keeps its line breaks, shell completion at the top only."""

import typer


def noun(help_text: str) -> typer.Typer:
    """A command with verbs below it."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True, help=help_text)


def single_command() -> typer.Typer:
    """A command without verbs."""
    return typer.Typer(rich_markup_mode=None, add_completion=False)
