"""The alert rules: valid, tested in both directions by promtool, and each with a paragraph that says what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "dashboards" / "alerts").glob("*.yml"))
RULE_TESTS = sorted((ROOT / "dashboards" / "alert_tests").glob("*.yml"))
RUNBOOK = ROOT / "docs" / "operations.md"
PROMTOOL_S = 60

# name -> text of the rule
ALERTS = {
    match["name"]: match["text"]
    for path in RULES
    for match in re.finditer(r"- alert: (?P<name>\w+)\n(?P<text>.*?)(?=- alert:|\Z)", path.read_text(), re.DOTALL)
}


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not here: apt-get install prometheus (.ci/run does)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=PROMTOOL_S, check=False)


def test_promtool_finds_the_rules_and_the_config_valid() -> None:
    for done in (
        promtool("check", "rules", *map(str, RULES)),
        promtool("check", "config", str(ROOT / "dashboards" / "prometheus.yml")),
    ):
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_fire_when_they_should_and_only_then(path: Path) -> None:
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = "".join(path.read_text() for path in RULE_TESTS)
    found = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", cases)
    fires = {name for name, nothing in found if not nothing}
    stays_silent = {name for name, nothing in found if nothing}
    assert fires == set(ALERTS)
    assert stays_silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(name: str) -> None:
    text = ALERTS[name]
    assert re.search(r"severity: (warning|critical)\n", text)
    assert "summary:" in text
    description = text.partition("description:")[2].partition("runbook_url:")[0]
    assert "{{ $labels." in description
    assert f"runbook_url: docs/operations.md#{name.lower()}\n" in text


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_says_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/operations.md has no paragraph on {name}"
    for part in ("**Means.**", "**Look at.**", "**Do.**"):
        assert part in found[1]
