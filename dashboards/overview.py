"""The first page: is anyone behind, what is failing, is the broker well. Each answer leads to the page that explains it."""

from grafana_foundation_sdk.models import dashboard as model

from dashboards.frame import BROKER_UID, DELIVERY_UID, LAG_UID, OVERVIEW_UID, Panel, Row, dashboard
from dashboards.style import BROKER, Query, lines, link_to, number, or_zero, quantile, rate
from dashboards.terms import (
    ANY_IS_A_WARNING,
    ANY_IS_BAD,
    DISK_FREE,
    DISK_FREE_STEPS,
    FSYNC_STEPS,
    LAG_STEPS,
    UP,
    UP_WORDS,
    letters_per_second,
    unserved,
)

TO_LAG = link_to(LAG_UID, "Consumer lag")
TO_DELIVERY = link_to(DELIVERY_UID, "Delivery")
TO_BROKER = link_to(BROKER_UID, "Broker")


def overview() -> model.Dashboard:
    """The dashboard."""
    return dashboard(
        OVERVIEW_UID,
        "logsvc / Overview",
        "Is anyone behind, what is failing, is the broker well: one broker of logsvc on one page.",
        [Row("Is anyone behind?", _behind()), Row("What is failing?", _failing()), Row("Is the broker well?", _well())],
    )


def _behind() -> list[Panel]:
    return [
        number(
            "Worst lag in time",
            "Age of the oldest record that a group has not consumed, over all groups: now less that record's timestamp, read "
            "from the log. 0 when everybody has caught up.",
            f"max(logsvc_consumer_group_lag_seconds{{{BROKER}}})",
            unit="s",
            steps=LAG_STEPS,
            link=TO_LAG,
            width=8,
        ),
        number(
            "Records behind",
            "Records between the committed offsets and the ends of the partitions, summed over all groups.",
            f"sum(logsvc_consumer_group_lag{{{BROKER}}})",
            link=TO_LAG,
            width=8,
        ),
        number(
            "Groups nobody serves",
            "Groups that have records to consume and no members.",
            or_zero(f"count({unserved(BROKER)})"),
            steps=ANY_IS_BAD,
            link=TO_LAG,
            width=8,
        ),
        lines(
            "Lag in time by group",
            "Age of the first record not consumed, in the worst partition of each group. A line that rises by a second every "
            "second is a group that stands still.",
            Query(f"max by (group) (logsvc_consumer_group_lag_seconds{{{BROKER}}})", "{{group}}"),
            unit="s",
            steps=LAG_STEPS,
            link=TO_LAG,
        ),
        lines(
            "Lag in records by group",
            "Records that each group has yet to consume.",
            Query(f"sum by (group) (logsvc_consumer_group_lag{{{BROKER}}})", "{{group}}"),
            link=TO_LAG,
        ),
    ]


def _failing() -> list[Panel]:
    return [
        number(
            "Failed records under way",
            "Records that have failed, or wait behind one of their key that has, and are not done yet.",
            or_zero(f"sum(logsvc_failed_offsets{{{BROKER}}})"),
            steps=ANY_IS_A_WARNING,
            link=TO_DELIVERY,
            width=8,
        ),
        number(
            "Dead letters",
            "Letters in all dead-letter topics now, those redriven too. They stay until somebody purges them.",
            or_zero(f"sum(logsvc_dead_letters{{{BROKER}}})"),
            steps=ANY_IS_A_WARNING,
            link=TO_DELIVERY,
            width=8,
        ),
        number(
            "Breakers open",
            "Groups of which so much fails that they pause, and try single records until what they call is back.",
            or_zero(f"sum(logsvc_breaker_open{{{BROKER}}})"),
            steps=ANY_IS_BAD,
            link=TO_DELIVERY,
            width=8,
        ),
        lines(
            "Failures, retries and dead letters",
            "Failures are reported by consumers; a retry is a failed record handed out again; a dead letter is a record whose "
            "attempts are spent.",
            Query(or_zero(f"sum({rate('logsvc_failures_total', BROKER)})"), "failures"),
            Query(or_zero(f"sum({rate('logsvc_retries_total', BROKER)})"), "retries"),
            Query(or_zero(f"sum({letters_per_second(BROKER)})"), "dead letters"),
            unit="recps",
            link=TO_DELIVERY,
        ),
        lines(
            "Dead letters by topic and group",
            "Letters kept, by the topic the records came from and the group that failed them.",
            Query(f"sum by (group, topic) (logsvc_dead_letters{{{BROKER}}})", "{{topic}} · {{group}}"),
            link=TO_DELIVERY,
        ),
    ]


def _well() -> list[Panel]:
    return [
        number("Broker", "Whether Prometheus reaches it.", UP, mappings=UP_WORDS, link=TO_BROKER, width=6),
        number(
            "Partitions not online",
            "Partitions that refuse writes (read_only: damaged records were found) or everything (failed: an fsync failed).",
            or_zero(f'sum(logsvc_partition_state{{{BROKER}, state!="online"}})'),
            steps=ANY_IS_BAD,
            link=TO_BROKER,
            width=6,
        ),
        number(
            "Disk free",
            "Free space of the data folder's file system, as a share of its size.",
            DISK_FREE,
            unit="percentunit",
            steps=DISK_FREE_STEPS,
            base="red",
            decimals=0,
            link=TO_BROKER,
            width=6,
        ),
        number(
            "Memory",
            "Resident memory of the broker.",
            f"process_resident_memory_bytes{{{BROKER}}}",
            unit="bytes",
            link=TO_BROKER,
            width=6,
        ),
        lines(
            "Records in",
            "Records appended, by topic.",
            Query(f"sum by (topic) ({rate('logsvc_appended_records_total', BROKER)})", "{{topic}}"),
            unit="recps",
            stacked=True,
            link=TO_BROKER,
        ),
        lines(
            "Bytes in and out",
            "Bytes of record batches appended, and sent to consumers.",
            Query(f"sum({rate('logsvc_appended_bytes_total', BROKER)})", "in"),
            Query(f"sum({rate('logsvc_fetched_bytes_total', BROKER)})", "out"),
            unit="binBps",
            link=TO_BROKER,
        ),
        lines(
            "Disk: append and fsync, 99th percentile",
            "An acknowledgement waits for one append and one fsync (flush=always).",
            Query(quantile(0.99, "logsvc_append_duration_seconds", BROKER), "append"),
            Query(quantile(0.99, "logsvc_fsync_duration_seconds", BROKER), "fsync"),
            unit="s",
            steps=FSYNC_STEPS,
            link=TO_BROKER,
        ),
        lines(
            "Requests answered with an error",
            "By what was asked and what was answered.",
            Query(f"sum by (api, code) ({rate('logsvc_request_errors_total', BROKER)})", "{{api}} {{code}}"),
            unit="reqps",
            link=TO_BROKER,
        ),
    ]
