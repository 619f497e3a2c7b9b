"""The benchmark of scrapes with tiny inputs, so that it never rots; no figure is judged here."""

import json
from pathlib import Path

import pytest

from tests.bench import scrape

TINY = ("--rounds", "1", "--topics", "2", "--partitions", "3", "--groups", "4", "--scrapes", "2", "--seconds", "0.3")


@pytest.mark.parametrize("more", [(), ("--kafka-exporter",)])
def test_a_whole_run_ends_in_a_table(more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scrape.main([*TINY, *more, "--json", str(tmp_path / "figures.json")])
    table = capsys.readouterr().out
    for what in ("scrape", "durable send, p99, scraped once a second", "p99 scraped, beside p99 alone", "memory of the broker"):
        assert f"| {what} |" in table
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(len(values) == 1 for values in figures.values())
