"""Every limit of the coordinator, with its default."""

from dataclasses import dataclass

IDENTIFIER_CHARACTERS_MAX = 256  # of a member, instance or client id


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorLimits:
    """Bounds on what clients can make the broker remember, and on the times they may choose.

    Members heartbeat every `heartbeat_interval_ms`, every `heartbeat_interval_reconciling_ms` while they wait for partitions
    or have some to give up, and at least three times a session.

    `failures_per_partition_max` is where a partition says it is full and consumers stop reading on; a commit that would
    leave more than `failures_per_partition_refused` is refused, for consumers that do not stop.

    A fetch of retries brings at most `retries_per_fetch_max`, and with each record up to `retries_behind_max` of its key that
    wait for it.

    `suspect_deaths` consumers that die with records of a partition in hand isolate it. `suspect_records_max` are under
    suspicion from the committed offset on, and `suspect_in_hand_max` of the retries that were out.

    A redrive looks at `redrive_letters` dead letters at a time. It waits while a partition has `redrive_failures_max` failed
    records, well below the cap, so that a redrive never keeps new records from being read; after `redrive_wait_ms` it looks
    again. `redrives_kept` that are over are remembered, for each group.
    """

    groups_max: int = 10_000
    members_per_group_max: int = 1_000
    topics_per_member_max: int = 1_000
    failures_per_partition_max: int = 10_000
    failures_per_partition_refused: int = 200_000
    retries_per_fetch_max: int = 5_000
    retries_behind_max: int = 15
    session_timeout_default_ms: int = 10_000
    session_timeout_min_ms: int = 100
    session_timeout_max_ms: int = 1_800_000
    heartbeat_interval_ms: int = 1_000
    heartbeat_interval_reconciling_ms: int = 200
    error_bytes_max: int = 1_024
    stacktrace_bytes_max: int = 8_192
    dead_letter_backoff_ms: int = 1_000
    dead_letter_backoff_max_ms: int = 60_000
    suspect_deaths: int = 2
    suspect_records_max: int = 50_000
    suspect_in_hand_max: int = 1_000
    redrive_letters: int = 500
    redrive_failures_max: int = 5_000
    redrive_wait_ms: int = 500
    redrives_running_max: int = 100
    redrives_kept: int = 20


DEFAULT_LIMITS = CoordinatorLimits()
