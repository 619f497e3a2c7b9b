"""The benchmark of groups with tiny inputs, so that it never rots; no figure is judged here."""

import json
from pathlib import Path

import pytest

from tests.bench import groups

TINY = ("--rounds", "1", "--polled-records", "5000", "--run-records", "2000", "--idle-records", "3000", "--outstanding", "1000")


def test_a_whole_run_ends_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups.main([*TINY, "--json", str(tmp_path / "figures.json")])
    table = capsys.readouterr().out
    for what, *_ in (*groups.RATIOS, *groups.LIMITS):
        assert f"| {what} |" in table
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(len(values) == 1 for values in figures.values())


def test_one_step_alone_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    groups.main([*TINY, "--only", "group"])
    table = capsys.readouterr().out
    assert groups.RATIOS[0][0] in table
    assert groups.RATIOS[1][0] not in table
