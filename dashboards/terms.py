"""Expressions and limits that more than one dashboard uses. The limits are those of the alert rules."""

from dashboards.style import BROKER, GREEN, RED, YELLOW, Step, rate, words

LAG_SECONDS = 60.0  # LogsvcConsumerLagGrowing
FSYNC_SECONDS = 0.1  # LogsvcFsyncSlow
DISK_FREE_SHARE = 0.1  # LogsvcDiskSpaceLow

LAG_STEPS = (Step(LAG_SECONDS, YELLOW), Step(5 * LAG_SECONDS, RED))
FSYNC_STEPS = (Step(FSYNC_SECONDS, RED),)
DISK_FREE_STEPS = (Step(DISK_FREE_SHARE, YELLOW), Step(2 * DISK_FREE_SHARE, GREEN))  # red below
ANY_IS_BAD = (Step(1, RED),)
ANY_IS_A_WARNING = (Step(1, YELLOW),)

DISK_FREE = f"logsvc_disk_free_bytes{{{BROKER}}} / logsvc_disk_size_bytes{{{BROKER}}}"
UP = f"up{{{BROKER}}}"
UP_WORDS = words(_0=("down", RED), _1=("up", GREEN))


def unserved(selector: str) -> str:
    """The groups that have records to consume and no members, one series each."""
    lag = f"sum by (group) (logsvc_consumer_group_lag{{{selector}}})"
    return f"({lag} > 0) and on (group) (logsvc_consumer_group_members{{{selector}}} == 0)"


def letters_per_second(selector: str) -> str:
    """Records that become dead letters, in a second."""
    return rate("logsvc_dead_letter_records_total", selector)
