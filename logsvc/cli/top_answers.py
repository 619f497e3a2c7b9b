"""The three questions that `logsvc top` is opened for, each answered in a line: who is behind, what fails, is the broker well.

Pure. The worst is named first, and as much as fits: what is left out is counted.
"""

from dataclasses import dataclass

from rich.cells import cell_len

from logsvc.cli.drawing import short_age, short_count
from logsvc.cli.output import count_of, human_bytes, safe
from logsvc.cli.top_model import BrokerRow, GroupRow, Overview, Severity
from logsvc_common.transitions import State

STALE_INTERVALS = 3  # a sample this many intervals old is told as such


@dataclass(frozen=True, slots=True)
class Status:
    """What is known beside the samples. `now_s` is on the clock of the samples; `error` is why the last question failed."""

    server: str
    interval_s: float
    now_s: float
    error: str = ""

    def is_late(self, broker: BrokerRow) -> bool:
        """The last sample is so old that the broker may be gone."""
        return self.now_s - broker.at_s > STALE_INTERVALS * max(1.0, self.interval_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the three questions with its answer. Of `parts` as many are told as there is room for, between head and tail."""

    question: str
    severity: Severity
    head: str
    parts: tuple[str, ...] = ()
    tail: str = ""

    def text(self, room: int) -> str:
        """In `room` cells, if that can be: `head parts; +N more; tail`."""
        told = len(self.parts)
        while told > 1 and cell_len(self._joined(told)) > room:
            told -= 1
        return self._joined(told)

    def _joined(self, told: int) -> str:
        more = [f"+{len(self.parts) - told} more"] if told < len(self.parts) else []
        return self.head + "; ".join([*self.parts[:told], *more, *([self.tail] if self.tail else [])])


def answers(overview: Overview, status: Status, *, paused: bool = False) -> list[Answer]:
    """Is anyone behind, what is failing, is the broker well."""
    return [_who_is_behind(overview), _what_fails(overview), _is_it_well(overview.broker, status, paused)]


def _who_is_behind(overview: Overview) -> Answer:
    everyone = count_of(len(overview.groups), "group")
    behind = sorted((row for row in overview.groups if row.is_behind), key=lambda row: (-row.lag_ms, -row.lag))
    if not behind:
        return Answer("behind", Severity.OK, f"nobody; {everyone}")
    severity = Severity.BAD if any(row.members == 0 for row in behind) else Severity.WARNING
    named = tuple(
        f"{safe(row.group)} {short_age(row.lag_ms) if row.lag else f'{short_count(row.to_retry)} to retry'}" for row in behind
    )
    return Answer("behind", severity, f"{len(behind)} of {everyone}: ", named)


def _what_fails(overview: Overview) -> Answer:
    failing = sorted((row for row in overview.groups if _trouble(row)), key=_badness)
    letters = count_of(overview.broker.dead_letters, "dead letter") if overview.broker.dead_letters else "no dead letters"
    if not failing:
        return Answer("failing", Severity.OK, "nothing now; ", tail=letters)
    held_up = any(row.breaker == "open" or row.failed.get(State.PAUSED) for row in failing)
    named = tuple(f"{safe(row.group)} {', '.join(_trouble(row))}" for row in failing)
    return Answer("failing", Severity.BAD if held_up else Severity.WARNING, "", named, letters)


def _trouble(row: GroupRow) -> list[str]:
    breaker = ["breaker " + row.breaker.replace("_", " ")] if row.breaker in ("open", "half_open") else []
    return breaker + [f"{count:,} {state}" for state, count in row.failed.items()]


def _badness(row: GroupRow) -> tuple[bool, int, str]:
    return row.breaker != "open", -row.failed_total, row.group


def _is_it_well(broker: BrokerRow, status: Status, paused: bool) -> Answer:
    if not paused and (status.error or status.is_late(broker)):
        why = f": {safe(status.error)}" if status.error else ""
        return Answer("broker", Severity.BAD, f"no answer for {short_age((status.now_s - broker.at_s) * 1_000)}{why}")
    facts = [count_of(broker.partitions, "partition"), human_bytes(broker.size_bytes)]
    if broker.rate_per_s is not None:
        facts.append(f"{short_count(broker.rate_per_s)} records/s in")
    if broker.restarted_s is not None:
        facts.append(f"restarted {short_age((status.now_s - broker.restarted_s) * 1_000)} ago")
    if not broker.not_online:
        return Answer("broker", Severity.OK, "well; ", tail=", ".join(facts))
    named = tuple(f"{safe(topic)}-{partition} {state}" for topic, partition, state in broker.not_online)
    return Answer("broker", Severity.BAD, f"{len(broker.not_online)} not online: ", named, ", ".join(facts))
