"""One look for all panels, and the words PromQL is written in here.

A dashboard shows one broker, chosen by `$instance`: a group of the same name on another broker is another group, and sums
over both would mean nothing. Topics and groups are chosen within it, several at a time.

What comes from a counter is a rate over `$__rate_interval`, which Grafana keeps at four scrapes or more. What comes from an
offset, which may go back when a group is reset, is a slope (`deriv`), so that going back is not taken for a counter's restart.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

TAG = "logsvc"
DATA_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

BROKER = 'instance="$instance"'
BY_TOPIC = f'{BROKER}, topic=~"$topic"'
BY_GROUP = f'{BROKER}, group=~"$group"'
BY_GROUP_AND_TOPIC = f'{BROKER}, group=~"$group", topic=~"$topic"'
RATE = "$__rate_interval"

PANEL_WIDTH = 12  # of a row of 24
PANEL_HEIGHT = 9
STAT_HEIGHT = 4

GREEN, YELLOW, RED, BLUE, GREY = "green", "yellow", "red", "blue", "text"


class Step(NamedTuple):
    """From `value` on, `color`."""

    value: float
    color: str


class Query(NamedTuple):
    """One expression, and what its series are called: text with `{{label}}` in it."""

    expr: str
    legend: str = ""


def rate(counter: str, selector: str) -> str:
    """What a counter gains in a second."""
    return f"rate({counter}{{{selector}}}[{RATE}])"


def quantile(share: float, histogram: str, selector: str, *labels: str) -> str:
    """A quantile of a histogram's observations of late, one for each value of `labels`."""
    by = ", ".join(["le", *labels])
    return f"histogram_quantile({share}, sum by ({by}) ({rate(f'{histogram}_bucket', selector)}))"


def or_zero(expr: str) -> str:
    """0 where `expr` has no series: a counter that has never counted anything has none."""
    return f"{expr} or vector(0)"


def thresholds(steps: Sequence[Step], base: str = GREEN) -> build.ThresholdsConfig:
    """`base` below the first step."""
    marks = [model.Threshold(value=None, color=base), *(model.Threshold(value=step.value, color=step.color) for step in steps)]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(marks)


def link_to(uid: str, title: str) -> build.DashboardLink:
    """From a panel to another dashboard, about the same broker and time."""
    where = "var-datasource=${datasource}&var-instance=${instance}&${__url_time_range}"
    return build.DashboardLink(title).type(model.DashboardLinkType.LINK).url(f"/d/{uid}?{where}")


def number(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = "locale",
    steps: Sequence[Step] = (),
    base: str = GREEN,
    decimals: int | None = None,
    mappings: Sequence[model.ValueMapping] = (),
    link: build.DashboardLink | None = None,
    width: int = 4,
    name: str = "",
) -> stat.Panel:
    """One number as it is now: a count, written out, unless it has another unit.

    `name`: show the series' name, made of this legend, instead of its value.
    """
    mode = kinds.BigValueTextMode.NAME if name else kinds.BigValueTextMode.VALUE
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATA_SOURCE)
        .span(width)
        .height(STAT_HEIGHT)
        .unit(unit)
        .thresholds(thresholds(steps, base))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE)
        .text_mode(mode)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("–")
        .with_target(target(Query(expr, name), 0).instant())
    )
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        panel.mappings(list(mappings))
    if link is not None:
        panel.links([link])
    return panel


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    steps: Sequence[Step] = (),
    stacked: bool = False,
    lowest: float | None = 0,
    width: int = PANEL_WIDTH,
    link: build.DashboardLink | None = None,
    colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Lines over time, with their last and highest values in the legend.

    `lowest` None: values below 0 happen. `colors`: of lines whose names have a meaning of their own, by name.
    """
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).placement(kinds.LegendPlacement.BOTTOM)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATA_SOURCE)
        .span(width)
        .height(PANEL_HEIGHT)
        .unit(unit)
        .thresholds(thresholds(steps))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .legend(legend.show_legend(True).calcs(["lastNotNull", "max"]).sort_by("Last *").sort_desc(True))
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
        .draw_style(kinds.GraphDrawStyle.LINE)
        .line_interpolation(kinds.LineInterpolation.LINEAR)
        .line_width(2 if not stacked else 1)
        .fill_opacity(35 if stacked else 8)
        .show_points(kinds.VisibilityMode.NEVER)
    )
    if lowest is not None:
        panel.min(lowest)
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if link is not None:
        panel.links([link])
    for name, color in (colors or {}).items():
        fixed = build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color(color).build()
        panel.override_by_name(name, [model.DynamicConfigValue(id_val="color", value=fixed)])
    for position, query in enumerate(queries):
        panel.with_target(target(query, position).range())
    return panel


def states(
    title: str,
    description: str,
    query: Query,
    mappings: Sequence[model.ValueMapping],
    *,
    width: int = PANEL_WIDTH,
) -> statetimeline.Panel:
    """A strip for each series, coloured by its value over time."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATA_SOURCE)
        .span(width)
        .height(PANEL_HEIGHT)
        .mappings(list(mappings))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds((), GREY))
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.SINGLE).sort(kinds.SortOrder.NONE))
        .show_value(kinds.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .with_target(target(query, 0).range())
    )


def words(**names: tuple[str, str]) -> list[model.ValueMapping]:
    """Values shown as words: `_0=("closed", GREEN)`."""
    options = {
        value.removeprefix("_"): model.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(names.items())
    }
    return [model.ValueMap(options=options)]


def target(query: Query, position: int) -> prometheus.Dataquery:
    """The query as Grafana takes it, the `position`th of its panel."""
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend or "__auto")
        .ref_id(chr(ord("A") + position))
        .datasource(DATA_SOURCE)
        .editor_mode(QueryEditorMode.CODE)
        .format(PromQueryFormat.TIME_SERIES)
    )
