"""The page's own files: small, sound, self-contained. Needs no browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[2] / "logsvc" / "console"
SCRIPTS = sorted(CONSOLE.glob("js/**/*.js"))
STYLES = sorted(CONSOLE.glob("css/*.css"))
PAGE = CONSOLE / "index.html"
SCRIPT_LINES_MAX = 300
# Ways by which text becomes markup or code.
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser|setHTML")
ELSEWHERE = re.compile(r"\bhttps?://(?!www\.w3\.org/2000/svg)|(?<![:\w])//[a-z0-9-]+\.[a-z]{2,}", re.IGNORECASE)

# What `node --check` does, for all of them in one process. The theme's script is a classic one, the others are modules.
PARSE = """
const {readFileSync} = require("node:fs");
const {Script, SourceTextModule} = require("node:vm");
for (const file of process.argv.slice(1)) {
  try {
    const source = readFileSync(file, "utf8");
    if (file.endsWith("theme-early.js")) new Script(source); else new SourceTextModule(source);
  } catch (error) {
    console.error(`${file}: ${error.message}`);
    process.exitCode = 1;
  }
}
"""


def shown(path: Path) -> str:
    return path.relative_to(CONSOLE).as_posix()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags() -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(PAGE.read_text())
    return parser.found


@pytest.mark.skipif(shutil.which("node") is None, reason="checking the syntax of JavaScript needs Node.js")
def test_every_script_parses() -> None:
    options = ["--no-warnings", "--experimental-vm-modules", "--eval", PARSE]
    checked = subprocess.run(["node", *options, *map(str, SCRIPTS)], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=shown)
def test_a_script_is_small_says_its_strategy_and_makes_no_markup_of_text(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("/* ")
    assert len(text.splitlines()) <= SCRIPT_LINES_MAX
    assert not MARKUP.search(text)


@pytest.mark.parametrize("file", [*SCRIPTS, *STYLES, PAGE], ids=shown)
def test_nothing_is_fetched_from_elsewhere(file: Path) -> None:
    assert not ELSEWHERE.search(file.read_text())
    assert "@import" not in file.read_text()


def test_the_page_has_no_inline_script_or_style_and_names_files_that_are_there() -> None:
    for tag, attributes in tags():
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag != "style"
        named = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
        assert tag != "script" or named
        assert named is None or (CONSOLE / named).is_file(), named


def test_every_module_is_preloaded_so_that_none_waits_for_another() -> None:
    preloaded = {attributes["href"] for tag, attributes in tags() if tag == "link" and attributes.get("rel") == "modulepreload"}
    started = {attributes["src"] for tag, attributes in tags() if tag == "script"}
    assert preloaded | started == {shown(script) for script in SCRIPTS}


def test_what_is_vendored_names_its_version_and_licence() -> None:
    readme = (CONSOLE / "vendor" / "README.md").read_text()
    assert re.search(r"uplot` \d+\.\d+\.\d+", readme)
    assert "MIT" in (CONSOLE / "vendor" / "uPlot.LICENSE").read_text()
