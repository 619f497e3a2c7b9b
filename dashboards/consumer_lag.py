"""Who is behind, where, since when, and whether they catch up: groups and topics chosen at the top."""

from grafana_foundation_sdk.models import dashboard as model

from dashboards.frame import LAG_UID, Panel, Row, dashboard, group_variable, topic_variable
from dashboards.style import (
    BLUE,
    BY_GROUP,
    BY_GROUP_AND_TOPIC,
    BY_TOPIC,
    GREEN,
    RATE,
    YELLOW,
    Query,
    lines,
    number,
    or_zero,
    rate,
    states,
    words,
)
from dashboards.tables import Column, table
from dashboards.terms import ANY_IS_BAD, LAG_STEPS, unserved

LAG = f"logsvc_consumer_group_lag{{{BY_GROUP_AND_TOPIC}}}"
LAG_SECONDS = f"logsvc_consumer_group_lag_seconds{{{BY_GROUP_AND_TOPIC}}}"
COMMITTED = f"logsvc_consumer_group_committed_offset{{{BY_GROUP_AND_TOPIC}}}"
WHERE = "group, topic, partition"

# One series for each group, its value the place of the state it is in.
GROUP_STATES = ("empty", "assigning", "reconciling", "stable")
STATE = " or ".join(
    f'(max by (group) (logsvc_consumer_group_state{{{BY_GROUP}, state="{state}"}}) == 1) * {place}'
    for place, state in enumerate(GROUP_STATES)
)
STATE_WORDS = words(_0=("empty", YELLOW), _1=("assigning", BLUE), _2=("reconciling", BLUE), _3=("stable", GREEN))


def consumer_lag() -> model.Dashboard:
    """The dashboard."""
    return dashboard(
        LAG_UID,
        "logsvc / Consumer lag",
        "How far consumer groups are behind, in time and in records, and whether they catch up.",
        [
            Row("Now", _now()),
            Row("Groups", _groups()),
            Row("Partitions", _partitions()),
            Row("Membership", _membership()),
        ],
        [group_variable(), topic_variable()],
    )


def _now() -> list[Panel]:
    return [
        number(
            "Worst lag in time",
            "Age of the oldest record not consumed, over the groups and topics chosen. 0 when they have caught up.",
            f"max({LAG_SECONDS})",
            unit="s",
            steps=LAG_STEPS,
            width=6,
        ),
        number("Records behind", "Records not consumed yet, over the groups and topics chosen.", f"sum({LAG})", width=6),
        number(
            "Worst partition",
            "The largest lag of a single partition, in records. Far above the others: a hot key, or a partition that is stuck.",
            f"max({LAG})",
            width=6,
        ),
        number(
            "Groups nobody serves",
            "Groups that have records to consume and no members.",
            or_zero(f"count({unserved(BY_GROUP)})"),
            steps=ANY_IS_BAD,
            width=6,
        ),
    ]


def _groups() -> list[Panel]:
    return [
        lines(
            "Lag in time",
            "Age of the first record not consumed, in the worst partition of each group and topic. A line that rises by a "
            "second every second is a group that stands still.",
            Query(f"max by (group, topic) ({LAG_SECONDS})", "{{group}} · {{topic}}"),
            unit="s",
            steps=LAG_STEPS,
        ),
        lines(
            "Lag in records",
            "Records between the committed offsets and the ends.",
            Query(f"sum by (group, topic) ({LAG})", "{{group}} · {{topic}}"),
        ),
        lines(
            "Produced and consumed",
            "Records appended to each topic, and records that each group gets past (the slope of its committed offsets: below "
            "0 when it is reset to the past). A group that keeps up runs along its topic.",
            Query(f"sum by (topic) ({rate('logsvc_appended_records_total', BY_TOPIC)})", "{{topic}} produced"),
            Query(f"sum by (group, topic) (deriv({COMMITTED}[{RATE}]))", "{{topic}} consumed by {{group}}"),
            unit="recps",
            lowest=None,
        ),
        lines(
            "Change of lag",
            "Records by which each group falls behind in a second; below 0 it catches up.",
            Query(f"sum by (group, topic) (deriv({LAG}[{RATE}]))", "{{group}} · {{topic}}"),
            unit="recps",
            lowest=None,
        ),
    ]


def _partitions() -> list[Panel]:
    return [
        lines(
            "Lag in time by partition",
            "Age of the first record not consumed. One far above the others: a hot key, or a record nobody gets past.",
            Query(f"max by ({WHERE}) ({LAG_SECONDS})", "{{group}} · {{topic}}-{{partition}}"),
            unit="s",
            steps=LAG_STEPS,
        ),
        lines(
            "Lag in records by partition",
            "Records between the committed offset and the end of each partition.",
            Query(f"max by ({WHERE}) ({LAG})", "{{group}} · {{topic}}-{{partition}}"),
        ),
        lines(
            "End and committed offsets",
            "Where the partitions end and where the groups are, summed over the partitions of a topic.",
            Query(f"sum by (topic) (logsvc_partition_end_offset{{{BY_TOPIC}}})", "{{topic}} end"),
            Query(f"sum by (group, topic) ({COMMITTED})", "{{topic}} committed by {{group}}"),
        ),
        table(
            "Where each group stands",
            "Each partition that a group has committed in, the furthest behind first.",
            Column(f"max by ({WHERE}) ({COMMITTED})", "Committed"),
            Column(f"max by ({WHERE}) ({LAG})", "Lag"),
            Column(f"max by ({WHERE}) ({LAG_SECONDS})", "Lag in time", unit="s", steps=LAG_STEPS),
            labels=("group", "topic", "partition"),
            sort_by="Lag in time",
        ),
    ]


def _membership() -> list[Panel]:
    return [
        states(
            "State of the groups",
            "empty: no members. assigning: partitions are being shared out. reconciling: they move between members. stable: "
            "everybody has what is meant for them.",
            Query(STATE, "{{group}}"),
            STATE_WORDS,
            width=8,
        ),
        lines(
            "Members",
            "Consumers in each group. More members than partitions: some have nothing to do.",
            Query(f"max by (group) (logsvc_consumer_group_members{{{BY_GROUP}}})", "{{group}}"),
            width=8,
        ),
        lines(
            "Rebalances",
            "New assignments per minute. Many, all the time: members come and go, or their sessions run out.",
            Query(f"60 * sum by (group) ({rate('logsvc_consumer_group_rebalances_total', BY_GROUP)})", "{{group}}"),
            unit="cpm",
            width=8,
        ),
    ]
