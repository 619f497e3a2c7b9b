"""A mutant: one exact change of the source that breaks one promise, and the smallest test that must notice.

Changes are texts, not lines or trees: what does not occur exactly once any more is stale, and said to be, instead of being
applied somewhere else.
"""

from pathlib import Path
from typing import NamedTuple


class Stale(Exception):
    """The source has changed: this mutant has to be looked at again."""


class Mutant(NamedTuple):
    """`old` occurs once in `file` and becomes `new`. `caught_by` is a test, or several, as pytest names them, space between."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    caught_by: str

    def applied(self, source: str) -> str:
        """The source with the change made. Raises Stale."""
        count = source.count(self.old)
        if count != 1:
            raise Stale(f"{self.name!r}: what it changes occurs {count} times in {self.file}; look at it again")
        return source.replace(self.old, self.new)

    def check(self, root: Path) -> None:
        """Raises Stale when it cannot be applied below `root`, or when a test it names is not there."""
        source = (root / self.file).read_text()
        compile(self.applied(source), self.file, "exec")
        for test in self.caught_by.split():
            file, _, name = test.partition("::")
            if f"def {name.partition('[')[0].rpartition('::')[2]}(" not in (root / file).read_text():
                raise Stale(f"{self.name!r}: there is no test {test}")
