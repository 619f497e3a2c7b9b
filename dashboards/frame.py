"""What the dashboards have in common: variables, links to each other, time, and panels laid out in rows under headings."""

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from dashboards.style import BROKER, DATA_SOURCE, TAG

RANGE = "now-1h"
REFRESH = "30s"

OVERVIEW_UID = "logsvc-overview"
LAG_UID = "logsvc-consumer-lag"
DELIVERY_UID = "logsvc-delivery"
BROKER_UID = "logsvc-broker"

ALL = model.VariableOption(selected=True, text="All", value="$__all")


Panel = Builder[model.Panel]


class Row(NamedTuple):
    """Panels under a heading, from left to right."""

    title: str
    panels: Sequence[Panel]


def group_variable() -> build.QueryVariable:
    """The consumer groups looked at, all at first."""
    return _several("group", "Group", f"label_values(logsvc_consumer_group_members{{{BROKER}}}, group)")


def topic_variable() -> build.QueryVariable:
    """The topics looked at, all at first. The broker's own are among them: they take disk too."""
    return _several("topic", "Topic", f"label_values(logsvc_partition_end_offset{{{BROKER}}}, topic)")


def dashboard(
    uid: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[build.QueryVariable] = ()
) -> model.Dashboard:
    """A whole dashboard. Panels are numbered in their order, so that a link to one outlives the next build."""
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .timezone("browser")
        .time(RANGE, "now")
        .refresh(REFRESH)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(_links())
        .with_variable(_data_source())
        .with_variable(_instance())
    )
    for variable in variables:
        made.with_variable(variable)
    for row in rows:
        made.with_row(build.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    built = made.build()
    for number, shown in enumerate(built.panels or (), 1):
        shown.id_val = number
    return built


def _links() -> build.DashboardLink:
    return (
        build.DashboardLink("logsvc")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def _data_source() -> build.DatasourceVariable:
    return build.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _instance() -> build.QueryVariable:
    return (
        build.QueryVariable("instance")
        .label("Broker")
        .query("label_values(logsvc_build_info, instance)")
        .datasource(DATA_SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _several(name: str, label: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(DATA_SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(ALL)
    )
