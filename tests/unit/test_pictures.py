"""The pictures in the documents show what the code says now."""

import subprocess
import sys
from pathlib import Path

import pytest

MAKE_PICTURES = Path(__file__).parents[2] / "docs" / "make_pictures.py"
MAKE_TOP_PICTURE = MAKE_PICTURES.with_name("make_top_picture.py")


def run(*arguments: str, script: Path = MAKE_PICTURES) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", [MAKE_PICTURES, MAKE_TOP_PICTURE], ids=lambda script: script.stem)
def test_no_picture_is_stale(script: Path) -> None:
    checked = run("--check", script=script)
    assert checked.returncode == 0, checked.stderr


def test_a_stale_picture_is_noticed_and_drawn_anew(tmp_path: Path) -> None:
    script = tmp_path / "make_pictures.py"
    script.write_text(MAKE_PICTURES.read_text())
    document = tmp_path / "delivery.md"
    document.write_text("before\n<!-- picture: delivery -->\nold\n<!-- end of picture -->\nafter\n")
    assert run("--check", script=script).returncode == 1
    assert "old" in document.read_text(), "--check writes nothing"

    assert run(script=script).returncode == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- picture: delivery -->\n```mermaid\n")
    assert "waiting --> delivered: deliver" in text
    assert text.endswith("```\n<!-- end of picture -->\nafter\n")
    assert run("--check", script=script).returncode == 0
