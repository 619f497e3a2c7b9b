"""`logsvc dashboards export`: everything at its place, nobody's work taken away, and what is exported is valid."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from logsvc.cli import main as frame
from logsvc.cli.dashboards import BROKER, DASHBOARDS_PATH, LAYOUT, PROMETHEUS_URL, shipped_files

ROOT = Path(__file__).parents[3]
CONFIG = "prometheus/prometheus.yml"
DATA_SOURCE = "grafana/provisioning/datasources/logsvc.yml"
PROVIDER = "grafana/provisioning/dashboards/logsvc.yml"


class Outcome:
    """What a command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            frame.main(["dashboards", "export", *arguments])
        self.code = int(ended.value.code or 0)
        self.out, self.err = capsys.readouterr()


def written(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_everything_is_written_and_the_next_steps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = Outcome(capsys, str(tmp_path / "monitoring"))
    assert done.code == 0
    found = written(tmp_path / "monitoring")
    assert {CONFIG, DATA_SOURCE, PROVIDER} < set(found)
    assert len([name for name in found if name.startswith("grafana/dashboards/")]) == 4
    assert {name for name in found if name.startswith("prometheus/alerts/")} == {
        f"prometheus/alerts/{name}.yml" for name in ("broker", "consumers", "delivery")
    }
    assert sorted(done.out.splitlines()) == sorted(str(tmp_path / "monitoring" / name) for name in found)
    assert f"prometheus --config.file {tmp_path / 'monitoring' / CONFIG} --storage.tsdb.path" in done.err


def test_places_of_this_machine_are_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Outcome(capsys, str(tmp_path), "--broker", "logs.example.net:9393", "--prometheus-url", "http://prom.example.net:9091/")
    found = written(tmp_path)
    assert "targets: [logs.example.net:9393]\n" in found[CONFIG]
    assert "url: http://prom.example.net:9091\n" in found[DATA_SOURCE]
    assert f"path: {tmp_path.resolve()}/grafana/dashboards\n" in found[PROVIDER]


def test_what_is_filled_in_stands_in_the_shipped_files_once() -> None:
    shipped = dict(shipped_files())
    for default, name in ((BROKER, CONFIG), (PROMETHEUS_URL, DATA_SOURCE), (DASHBOARDS_PATH, PROVIDER)):
        assert [(path, text.count(default)) for path, text in shipped.items() if default in text] == [(name, 1)]


def test_a_folder_with_an_odd_name_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "it's: #1"
    assert Outcome(capsys, str(folder)).code == 0
    quoted = str(folder.resolve() / "grafana" / "dashboards").replace("'", "''")
    assert f"path: '{quoted}'\n" in written(folder)[PROVIDER]


def test_a_second_time_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Outcome(capsys, str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = Outcome(capsys, str(tmp_path), "--format", "json")
    assert again.code == 0
    assert json.loads(again.out)["written"] == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_somebodys_own_work_is_left_alone_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prometheus").mkdir()
    (tmp_path / CONFIG).write_text("mine")
    refused = Outcome(capsys, str(tmp_path))
    assert refused.code == 1
    assert f"{tmp_path / CONFIG} is there and differs" in refused.err
    assert "--force" in refused.err
    assert written(tmp_path) == {CONFIG: "mine"}
    forced = Outcome(capsys, str(tmp_path), "--force")
    assert forced.code == 0
    assert "job_name: logsvc" in (tmp_path / CONFIG).read_text()


def test_a_file_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    outcome = Outcome(capsys, str(tmp_path / "taken"))
    assert outcome.code == 1
    assert f"cannot write to {tmp_path / 'taken'}" in outcome.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--broker", "9293"),
        ("--broker", "http://127.0.0.1:9293"),
        ("--broker", "a:1]\nevil: [b"),
        ("--prometheus-url", "127.0.0.1:9090"),
        ("--prometheus-url", "http://a/'\nevil: b"),
        ("--prometheus-url", "http://a/ #"),
    ],
)
def test_a_place_that_is_none_is_a_usage_error(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Outcome(capsys, str(tmp_path), option, value).code == 2
    assert written(tmp_path) == {}


def test_promtool_takes_what_was_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not here: apt-get install prometheus (.ci/run does)")
    Outcome(capsys, str(tmp_path))
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / CONFIG)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 rule files found" in done.stdout


def test_the_wheel_takes_along_what_is_exported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {f"dashboards/{source}": f"logsvc/_dashboards/{source}" for source in LAYOUT}
