"""What becomes of records that fail: retries, dead letters and how old they are, breakers."""

from grafana_foundation_sdk.models import dashboard as model

from dashboards.frame import DELIVERY_UID, Panel, Row, dashboard, group_variable, topic_variable
from dashboards.style import (
    BLUE,
    BY_GROUP,
    BY_GROUP_AND_TOPIC,
    GREEN,
    RED,
    YELLOW,
    Query,
    Step,
    lines,
    number,
    or_zero,
    rate,
    states,
    words,
)
from dashboards.tables import Column, table
from dashboards.terms import ANY_IS_A_WARNING, ANY_IS_BAD, letters_per_second

DAY_SECONDS = 86_400
FAILED = f"logsvc_failed_offsets{{{BY_GROUP_AND_TOPIC}}}"
LETTERS = f"logsvc_dead_letters{{{BY_GROUP_AND_TOPIC}}}"
LETTER_AGE = f"logsvc_dead_letter_oldest_age_seconds{{{BY_GROUP_AND_TOPIC}}}"
BREAKER_WORDS = words(_0=("closed", GREEN), _1=("open", RED))
BY_WHOM = "{{group}} · {{topic}}"
STATES = {"waiting": YELLOW, "parked": BLUE, "delivered": GREEN, "dead_lettering": "purple", "paused": RED}


def delivery() -> model.Dashboard:
    """The dashboard."""
    return dashboard(
        DELIVERY_UID,
        "logsvc / Delivery",
        "Records that fail: how many, how often they are tried again, which became dead letters, who has paused.",
        [Row("Now", _now()), Row("Failures and retries", _failures()), Row("Dead letters", _letters())],
        [group_variable(), topic_variable()],
    )


def failed_in(state: str) -> str:
    """The failed records in one state, by partition."""
    return f'logsvc_failed_offsets{{{BY_GROUP_AND_TOPIC}, state="{state}"}}'


def _now() -> list[Panel]:
    return [
        number(
            "Failures",
            "Failures that consumers report in a second, over the groups and topics chosen.",
            or_zero(f"sum({rate('logsvc_failures_total', BY_GROUP_AND_TOPIC)})"),
            unit="recps",
        ),
        number(
            "Failed records under way",
            "Records that have failed, or wait behind one of their key that has, and are not done yet.",
            or_zero(f"sum({FAILED})"),
            steps=ANY_IS_A_WARNING,
        ),
        number(
            "Paused records",
            "Records whose attempts are spent under on_exhausted=pause: their partitions wait for `logsvc group resume`.",
            or_zero(f"sum({failed_in('paused')})"),
            steps=ANY_IS_BAD,
        ),
        number(
            "Dead letters",
            "Letters in the dead-letter topics now, those redriven too. They stay until somebody purges them.",
            or_zero(f"sum({LETTERS})"),
            steps=ANY_IS_A_WARNING,
        ),
        number(
            "Oldest letter",
            "Age of the oldest dead letter. Letters that nobody looks at are records lost slowly.",
            f"max({LETTER_AGE})",
            unit="s",
            steps=(Step(DAY_SECONDS, YELLOW), Step(7 * DAY_SECONDS, RED)),
        ),
        number(
            "Breakers open",
            "Groups of which so much fails that they pause, and try single records until what they call is back.",
            or_zero(f"sum(logsvc_breaker_open{{{BY_GROUP}}})"),
            steps=ANY_IS_BAD,
        ),
    ]


def _failures() -> list[Panel]:
    return [
        lines(
            "Failures",
            "Failures reported by consumers, first tries and retries alike.",
            Query(f"sum by (group, topic) ({rate('logsvc_failures_total', BY_GROUP_AND_TOPIC)})", BY_WHOM),
            unit="recps",
        ),
        lines(
            "Retries",
            "Failed records handed out again after their backoff.",
            Query(f"sum by (group, topic) ({rate('logsvc_retries_total', BY_GROUP_AND_TOPIC)})", BY_WHOM),
            unit="recps",
        ),
        lines(
            "Failed records by state",
            "waiting: for its backoff. parked: behind an earlier record of its key. delivered: in a consumer's hands. "
            "dead_lettering: its letter is being written. paused: waits for `logsvc group resume`.",
            # A state that no record is in has no series; its line would end, and its legend would keep the last number.
            *(Query(or_zero(f"sum({failed_in(state)})"), state) for state in STATES),
            stacked=True,
            colors=STATES,
        ),
        states(
            "Breakers",
            "A group whose breaker is open has paused: its records wait, its attempts are not spent, single records are tried.",
            Query(f"max by (group) (logsvc_breaker_open{{{BY_GROUP}}})", "{{group}}"),
            BREAKER_WORDS,
        ),
    ]


def _letters() -> list[Panel]:
    return [
        lines(
            "Records that became dead letters",
            "By the reason for which they were given up.",
            Query(
                f"sum by (group, topic, reason) ({letters_per_second(BY_GROUP_AND_TOPIC)})",
                f"{BY_WHOM} · {{{{reason}}}}",
            ),
            unit="recps",
        ),
        lines(
            "Letters redriven",
            "Dead letters put back for their group to handle again.",
            Query(f"sum by (group, topic) ({rate('logsvc_redriven_records_total', BY_GROUP_AND_TOPIC)})", BY_WHOM),
            unit="recps",
        ),
        lines(
            "Dead letters kept",
            "Letters in the dead-letter topics, by the topic they came from and the group that failed them.",
            Query(f"sum by (group, topic) ({LETTERS})", BY_WHOM),
        ),
        table(
            "Dead-letter topics",
            "What waits for somebody to look at it: `logsvc dlq show dlq.TOPIC.GROUP` says why it failed.",
            Column(f"sum by (group, topic) ({LETTERS})", "Letters", steps=ANY_IS_A_WARNING),
            Column(
                f"max by (group, topic) ({LETTER_AGE})",
                "Oldest",
                unit="s",
                steps=(Step(DAY_SECONDS, YELLOW), Step(7 * DAY_SECONDS, RED)),
            ),
            labels=("group", "topic"),
            sort_by="Letters",
        ),
    ]
