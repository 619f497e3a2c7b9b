"""Whether the broker is well: what it carries, how fast its disk is, what it has left, what it refuses."""

from grafana_foundation_sdk.models import dashboard as model

from dashboards.frame import BROKER_UID, Panel, Row, dashboard, topic_variable
from dashboards.style import BROKER, BY_TOPIC, GREEN, GREY, RED, YELLOW, Query, Step, lines, number, or_zero, quantile, rate
from dashboards.terms import ANY_IS_A_WARNING, ANY_IS_BAD, DISK_FREE, DISK_FREE_STEPS, FSYNC_STEPS, UP, UP_WORDS

AT_ONCE = f'{BROKER}, api!~"fetch|fetch_retries"'


def broker() -> model.Dashboard:
    """The dashboard."""
    return dashboard(
        BROKER_UID,
        "logsvc / Broker",
        "One broker: traffic, disk, requests, partitions, the process itself.",
        [
            Row("Now", _now()),
            Row("Traffic", _traffic()),
            Row("Disk", _disk()),
            Row("Requests", _requests()),
            Row("Partitions", _partitions()),
            Row("Process", _process()),
        ],
        [topic_variable()],
    )


def _now() -> list[Panel]:
    return [
        number("Broker", "Whether Prometheus reaches it.", UP, mappings=UP_WORDS),
        number("Version", "The version that runs.", f"logsvc_build_info{{{BROKER}}}", base=GREY, name="{{version}}"),
        number(
            "Uptime",
            "Time since the broker's start.",
            f"time() - process_start_time_seconds{{{BROKER}}}",
            unit="s",
            base=GREY,
        ),
        number(
            "Partitions not online",
            "Partitions that refuse writes (read_only: damaged records were found) or everything (failed: an fsync failed).",
            or_zero(f'sum(logsvc_partition_state{{{BROKER}, state!="online"}})'),
            steps=ANY_IS_BAD,
        ),
        number(
            "Disk free",
            "Free space of the data folder's file system, as a share of its size.",
            DISK_FREE,
            unit="percentunit",
            steps=DISK_FREE_STEPS,
            base="red",
            decimals=0,
        ),
        number(
            "Metrics left out",
            "Series that the broker left out, or counted together, because a family was full: what these pages do not see.",
            or_zero(f"sum(logsvc_metrics_series_dropped{{{BROKER}}})"),
            steps=ANY_IS_A_WARNING,
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        lines(
            "Records in",
            "Records appended, by topic.",
            Query(f"sum by (topic) ({rate('logsvc_appended_records_total', BY_TOPIC)})", "{{topic}}"),
            unit="recps",
            stacked=True,
            width=8,
        ),
        lines(
            "Bytes in",
            "Bytes of record batches appended, by topic, as they lie on the disk: compressed ones count compressed.",
            Query(f"sum by (topic) ({rate('logsvc_appended_bytes_total', BY_TOPIC)})", "{{topic}}"),
            unit="binBps",
            stacked=True,
            width=8,
        ),
        lines(
            "Bytes out",
            "Bytes of record batches sent to consumers, by topic.",
            Query(f"sum by (topic) ({rate('logsvc_fetched_bytes_total', BY_TOPIC)})", "{{topic}}"),
            unit="binBps",
            stacked=True,
            width=8,
        ),
    ]


def _disk() -> list[Panel]:
    return [
        lines(
            "Append",
            "Time to write a batch to its segment, without the fsync: half of them, and 99 of 100, are quicker.",
            Query(quantile(0.5, "logsvc_append_duration_seconds", BROKER), "median"),
            Query(quantile(0.99, "logsvc_append_duration_seconds", BROKER), "99th percentile"),
            unit="s",
            width=8,
        ),
        lines(
            "Fsync",
            "Time of one fdatasync. Every acknowledgement waits for one (flush=always); one covers all that came meanwhile.",
            Query(quantile(0.5, "logsvc_fsync_duration_seconds", BROKER), "median"),
            Query(quantile(0.99, "logsvc_fsync_duration_seconds", BROKER), "99th percentile"),
            unit="s",
            steps=FSYNC_STEPS,
            width=8,
        ),
        lines(
            "Fsyncs and appends",
            "How many a second. Far fewer fsyncs than appends: group commit has much to do.",
            Query(f"sum({rate('logsvc_append_duration_seconds_count', BROKER)})", "appends"),
            Query(f"sum({rate('logsvc_fsync_duration_seconds_count', BROKER)})", "fsyncs"),
            unit="ops",
            width=8,
        ),
        lines(
            "Disk used by topic",
            "Bytes of the segments, indexes not counted.",
            Query(f"sum by (topic) (logsvc_partition_size_bytes{{{BY_TOPIC}}})", "{{topic}}"),
            unit="bytes",
            stacked=True,
        ),
        lines(
            "Disk free",
            "Free space of the data folder's file system. At the reserve, writes are refused; reads and commits go on.",
            Query(f"logsvc_disk_free_bytes{{{BROKER}}}", "free"),
            Query(f"logsvc_disk_reserve_bytes{{{BROKER}}}", "reserve"),
            Query(f"logsvc_disk_size_bytes{{{BROKER}}}", "size"),
            unit="bytes",
        ),
    ]


def _requests() -> list[Panel]:
    return [
        lines(
            "Requests",
            "Requests answered, by api.",
            Query(f"sum by (api) ({rate('logsvc_request_duration_seconds_count', BROKER)}) > 0", "{{api}}"),
            unit="reqps",
            width=8,
        ),
        lines(
            "Time to the answer, 99th percentile",
            "From a request's arrival to its answer, by api. Without long polls (fetch, fetch_retries), which wait.",
            # A comparison leaves out what is not a number: the quantile of an api that nobody has called.
            Query(f"{quantile(0.99, 'logsvc_request_duration_seconds', AT_ONCE, 'api')} >= 0", "{{api}}"),
            unit="s",
            width=8,
        ),
        lines(
            "Requests answered with an error",
            "By what was asked and what was answered.",
            Query(f"sum by (api, code) ({rate('logsvc_request_errors_total', BROKER)})", "{{api}} {{code}}"),
            unit="reqps",
            width=8,
        ),
        lines(
            "Requests over a quota",
            "Requests of clients that had used up their bytes per second, or whose bytes in flight allowed no more.",
            Query(f"sum by (api) ({rate('logsvc_throttled_requests_total', BROKER)})", "{{api}}"),
            unit="reqps",
        ),
        lines(
            "Held back by quotas",
            "For how long clients over a quota were held back, per second and summed over their requests: several in flight "
            "wait at the same time.",
            Query(f"sum by (api) ({rate('logsvc_throttle_seconds_total', BROKER)})", "{{api}}"),
            unit="s",
        ),
    ]


def _partitions() -> list[Panel]:
    return [
        lines(
            "Partitions by state",
            "online: all is well. read_only: damaged records were found, the good ones are served. failed: an fsync failed, "
            "until a restart has recovered it.",
            Query(f"sum by (state) (logsvc_partition_state{{{BY_TOPIC}}})", "{{state}}"),
            width=8,
            colors={"online": GREEN, "read_only": YELLOW, "failed": RED},
        ),
        lines(
            "Partitions by topic",
            "How many each topic has.",
            Query(f"count by (topic) (logsvc_partition_end_offset{{{BY_TOPIC}}})", "{{topic}}"),
            width=8,
        ),
        lines(
            "Offsets kept by topic",
            "End less start, summed over the partitions: the records kept, before compaction takes some.",
            Query(
                f"sum by (topic) (logsvc_partition_end_offset{{{BY_TOPIC}}} - logsvc_partition_start_offset{{{BY_TOPIC}}})",
                "{{topic}}",
            ),
            width=8,
        ),
        lines(
            "Scrubbed",
            "Bytes of old records that the scrubber reads again and checks. Nothing between two rounds.",
            Query(rate("logsvc_scrubbed_bytes_total", BROKER), "read"),
            unit="binBps",
            width=8,
        ),
        lines(
            "Found by the scrubber",
            "Damaged batches, whose partitions are read-only until they are repaired, and index files that were built anew.",
            Query(f"logsvc_scrub_damaged_batches_total{{{BROKER}}}", "damaged batches"),
            Query(f"logsvc_scrub_rebuilt_indexes_total{{{BROKER}}}", "indexes built anew"),
            width=8,
        ),
        lines(
            "Last whole round of the scrubber",
            "Time since all records had been read again. Nothing before the first round has ended.",
            Query(f"logsvc_scrub_round_age_seconds{{{BROKER}}}", "ago"),
            unit="s",
            width=8,
        ),
    ]


def _process() -> list[Panel]:
    return [
        lines(
            "Memory",
            "Resident memory of the broker.",
            Query(f"process_resident_memory_bytes{{{BROKER}}}", "resident"),
            unit="bytes",
            width=8,
        ),
        lines(
            "Processor",
            "Processors' worth of time used. The event loop is one thread: near 1, it is what limits the broker.",
            Query(rate("process_cpu_seconds_total", BROKER), "used"),
            unit="percentunit",
            width=8,
        ),
        lines(
            "Open files",
            "File descriptors in use, as a share of the limit. A partition needs one or two, a client one.",
            Query(f"process_open_fds{{{BROKER}}} / process_max_fds{{{BROKER}}}", "in use"),
            unit="percentunit",
            steps=(Step(0.8, RED),),
            width=8,
        ),
        lines(
            "Rebalances",
            "New assignments of all groups, per minute.",
            Query(f"60 * sum by (group) ({rate('logsvc_consumer_group_rebalances_total', BROKER)})", "{{group}}"),
            unit="cpm",
        ),
        lines(
            "Lag in time from an earlier scrape",
            "Partitions of groups whose lag in time could not be read anew: a scrape reads only so many records from the log. "
            "Their age still grows with the clock.",
            Query(f"logsvc_consumer_group_lag_seconds_deferred{{{BROKER}}}", "partitions"),
        ),
    ]
