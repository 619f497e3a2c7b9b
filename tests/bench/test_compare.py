"""The benchmarks with tiny inputs, so that they never rot; no figure is judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import compare

TINY = ("--rounds", "1", "--records-100", "2000", "--records-1000", "500", "--latency-records", "20")
TINIER = ("--disk-bytes", str(2 << 20), "--many-partitions", "20")


def test_a_whole_comparison_ends_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([*TINY, *TINIER, "--json", str(tmp_path / "figures.json")])
    table = capsys.readouterr().out
    for goal in compare.GOALS:
        assert (f"| {goal.what} |" in table) == ("rdkafka" not in goal.beside), goal
    for what, *_ in compare.LIMITS:
        assert f"| {what} |" in table
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(len(values) == 1 and values[0] > 0 for values in figures.values())


def test_another_yardstick_is_understood_by_the_lines_it_prints(tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text(
        "print('100 B produce 1,863,765 records/s 186 MB/s')\nprint('1000 B consume 900,000 records/s 900 MB/s')\n"
    )
    figures = compare.Figures()
    compare.measure_yardstick(figures, compare.Sizes(1, 1, 1, 1, 1, 1), script)
    assert figures.median("yardstick produce 100") == 1_863_765
    assert figures.median("yardstick consume 1000 MB/s") == 900


def test_the_yardstick_prints_four_lines() -> None:
    command = [sys.executable, str(compare.HERE / "yardstick.py"), "--records-100", "3000", "--records-1000", "500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert [(size, what) for size, what, *_ in compare.YARDSTICK_LINE.findall(done.stdout)] == [
        ("100", "produce"),
        ("100", "consume"),
        ("1000", "produce"),
        ("1000", "consume"),
    ]


def test_a_step_that_fails_stops_the_comparison_with_its_own_words() -> None:
    with pytest.raises(SystemExit, match="my words"):
        compare.run([sys.executable, "-c", "import sys; sys.exit('my words')"])
