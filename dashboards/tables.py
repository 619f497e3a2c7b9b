"""Tables: what is now, one row for each set of labels, one column for each expression."""

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders import table as build
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.style import DATA_SOURCE, PANEL_HEIGHT, PANEL_WIDTH, Query, Step, target, thresholds


class Column(NamedTuple):
    """An expression whose series carry exactly the labels of the table."""

    expr: str
    name: str
    unit: str = "locale"
    steps: Sequence[Step] = ()


def table(
    title: str, description: str, *columns: Column, labels: Sequence[str], sort_by: str, width: int = PANEL_WIDTH
) -> build.Panel:
    """A table of labels and values, the largest of `sort_by` first."""
    panel = (
        build.Panel()
        .title(title)
        .description(description)
        .datasource(DATA_SOURCE)
        .span(width)
        .height(PANEL_HEIGHT)
        .show_header(True)
        .filterable(True)
        .cell_options(kinds.TableAutoCellOptions())
        .cell_height(kinds.TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(model.DataTransformerConfig(id_val="organize", options=_order(columns, labels)))
    )
    for position, column in enumerate(columns):
        panel.with_target(target(Query(column.expr), position).instant().format(PromQueryFormat.TABLE))
        panel.override_by_name(column.name, _properties(column))
    return panel


def _order(columns: Sequence[Column], labels: Sequence[str]) -> dict[str, object]:
    """Grafana calls the values of query A `Value #A`; with a single query it says `Value`."""
    values = ["Value"] if len(columns) == 1 else [f"Value #{chr(ord('A') + position)}" for position in range(len(columns))]
    return {
        "excludeByName": {"Time": True},
        "indexByName": {name: position for position, name in enumerate([*labels, *values])},
        "renameByName": {
            **{label: label.capitalize() for label in labels},
            **{value: column.name for value, column in zip(values, columns, strict=True)},
        },
    }


def _properties(column: Column) -> list[model.DynamicConfigValue]:
    found = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
    if column.steps:
        found.append(model.DynamicConfigValue(id_val="thresholds", value=thresholds(column.steps).build()))
        found.append(model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
    return found
