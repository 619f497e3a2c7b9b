"""What the dead letters of one topic have in common: whose they are, how old, and why most of them failed. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from logsvc_common.letters import Letter

ERRORS_LETTERS_MAX = 1_000  # the newest letters of a partition, whose errors are counted
ERRORS_SHOWN = 3


class ErrorCount(NamedTuple):
    """`kind` is the exception's class, or the message of an error that has none; `message` is the newest of this kind."""

    kind: str
    letters: int
    message: str
    exception_class: str | None


@dataclass
class Pile:
    """The dead letters of one topic. Times in ms since the epoch; `source` and `group` are empty while not known."""

    topic: str
    letters: int = 0
    redriven: int = 0
    source: str = ""
    group: str = ""
    oldest_ms: int | None = None
    newest_ms: int | None = None
    errors: Counter[tuple[str, bool]] = field(default_factory=Counter)  # by (kind, whether that is a class)
    samples: dict[str, str] = field(default_factory=dict)

    def add(self, letter: Letter) -> None:
        """Take the letter's age and origin into account."""
        self.source, self.group = self.source or letter.topic or "", self.group or letter.group or ""
        self.oldest_ms = letter.died_ms if self.oldest_ms is None else min(letter.died_ms, self.oldest_ms)
        self.newest_ms = letter.died_ms if self.newest_ms is None else max(letter.died_ms, self.newest_ms)

    def count(self, letter: Letter) -> None:
        """Count its error."""
        kind = letter.exception_class or letter.error or "unknown"
        self.errors[kind, bool(letter.exception_class)] += 1
        self.samples[kind] = letter.error or ""

    def top_errors(self) -> list[ErrorCount]:
        """The most common ones."""
        return [
            ErrorCount(kind, count, self.samples[kind], kind if is_class else None)
            for (kind, is_class), count in self.errors.most_common(ERRORS_SHOWN)
        ]
