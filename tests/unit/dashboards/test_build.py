"""The dashboards as Grafana will take them: what is committed is what the code says, and every panel can be read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards import terms
from dashboards.build import FOLDER, built, main, stale

ROOT = Path(__file__).parents[3]
DASHBOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in built().items()}
PANELS = [
    pytest.param(dashboard, panel, id=f"{dashboard['uid']}-{panel['title']}")
    for dashboard in DASHBOARDS.values()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
GRID_WIDTH = 24
VARIABLE = re.compile(r"\$\{?(\w+)")
OF_GRAFANA = {"__all", "__rate_interval", "__url_time_range"}


def test_what_is_committed_is_what_the_code_says() -> None:
    assert stale(FOLDER, built()) == [], "run: python -m dashboards.build"


class TestTheCheck:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        assert main([], tmp_path) == 0
        return tmp_path

    def test_passes_on_what_was_just_built(self, folder: Path) -> None:
        assert main(["--check"], folder) == 0

    def test_names_what_was_edited_by_hand_what_is_missing_and_what_is_left_over(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (folder / "logsvc-broker.json").write_text("{}")
        (folder / "logsvc-delivery.json").unlink()
        (folder / "old.json").write_text("{}")
        assert main(["--check"], folder) == 1
        assert capsys.readouterr().err.splitlines() == [
            "logsvc-delivery.json is missing",
            "logsvc-broker.json is not what the code says",
            "old.json is built by nothing",
            "run: python -m dashboards.build",
        ]

    def test_a_build_mends_all_of_it(self, folder: Path) -> None:
        (folder / "logsvc-broker.json").write_text("{}")
        (folder / "old.json").write_text("{}")
        assert main([], folder) == 0
        assert main(["--check"], folder) == 0

    def test_a_word_it_does_not_know_is_a_usage_error(self, folder: Path) -> None:
        assert main(["--chekc"], folder) == 2


class TestDashboards:
    def test_addresses_stay_as_they_are(self) -> None:
        assert [dashboard["uid"] for dashboard in DASHBOARDS.values()] == [
            "logsvc-overview",
            "logsvc-consumer-lag",
            "logsvc-delivery",
            "logsvc-broker",
        ]

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_each_refreshes_itself_and_is_linked_with_the_others(self, name: str) -> None:
        dashboard = DASHBOARDS[name]
        assert (dashboard["time"], dashboard["refresh"]) == ({"from": "now-1h", "to": "now"}, "30s")
        [link] = dashboard["links"]
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
        assert set(link["tags"]) <= set(dashboard["tags"])

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_panels_fill_their_rows_and_do_not_overlap(self, name: str) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in DASHBOARDS[name]["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
            }
            assert not taken & cells, panel["title"]
            taken |= cells
        height = max(y for _, y in taken) + 1
        assert len(taken) == GRID_WIDTH * height
        numbers = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
        assert numbers == list(range(1, len(numbers) + 1))

    @pytest.mark.parametrize("name", DASHBOARDS)
    def test_every_variable_that_is_used_is_there_and_every_one_there_is_used(self, name: str) -> None:
        dashboard = DASHBOARDS[name]
        defined = {variable["name"] for variable in dashboard["templating"]["list"]}
        # Links in panels and descriptions of panels are text of the same file.
        assert set(VARIABLE.findall(json.dumps(dashboard))) - OF_GRAFANA == defined
        assert {"datasource", "instance"} <= defined


class TestPanels:
    @pytest.mark.parametrize(("dashboard", "panel"), PANELS)
    def test_says_what_it_shows(self, dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
        assert panel["type"] in {"stat", "timeseries", "table", "state-timeline"}
        assert panel["title"]
        assert len(panel["description"]) > 20
        assert panel["description"].endswith(".")

    @pytest.mark.parametrize(("dashboard", "panel"), PANELS)
    def test_asks_the_data_source_that_was_chosen_about_one_broker(
        self, dashboard: dict[str, Any], panel: dict[str, Any]
    ) -> None:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            metrics = re.findall(r"\b(?:(?:logsvc|process)_\w+|up)\b(?=\{)", target["expr"])
            assert len(metrics) == target["expr"].count('instance="$instance"') > 0, target["expr"]

    @pytest.mark.parametrize(("dashboard", "panel"), PANELS)
    def test_has_a_unit_thresholds_and_a_legend(self, dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in ("stat", "timeseries"):
            assert defaults["unit"]
            assert defaults["thresholds"]["steps"][0]["value"] is None
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["displayMode"] == "table"
            assert all(target["legendFormat"] != "__auto" for target in panel["targets"])

    @pytest.mark.parametrize(("dashboard", "panel"), PANELS)
    def test_leads_only_where_there_is_something(self, dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
        for link in panel.get("links", ()):
            target = re.match(r"/d/([\w-]+)\?", link["url"])
            assert target is not None
            assert f"{target[1]}.json" in DASHBOARDS


def test_a_line_that_is_crossed_is_where_the_alert_is() -> None:
    rules = "".join(path.read_text() for path in (ROOT / "dashboards" / "alerts").glob("*.yml"))
    assert f"logsvc_consumer_group_lag_seconds > {terms.LAG_SECONDS:.0f})" in rules
    assert f"logsvc_fsync_duration_seconds_bucket[5m]))) > {terms.FSYNC_SECONDS}\n" in rules
    assert f"logsvc_disk_size_bytes < {terms.DISK_FREE_SHARE:.2f}\n" in rules
