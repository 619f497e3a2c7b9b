"""The piles counted last. A pile is what the dead letters of one topic have in common (`logsvc_common.letter_pile`)."""

from collections import OrderedDict

from logsvc_common.letter_pile import Pile

PILES_MAX = 1_000

Offsets = tuple[tuple[int, int], ...]


class PileCache:
    """At most PILES_MAX piles, each with the start and end offsets of the partitions it was counted from."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Offsets, Pile]] = OrderedDict()

    def get(self, topic: str, offsets: Offsets) -> Pile | None:
        """The pile of a topic, if it was counted from these offsets."""
        kept = self._kept.get(topic)
        return kept[1] if kept is not None and kept[0] == offsets else None

    def put(self, topic: str, offsets: Offsets, pile: Pile) -> None:
        """Keep a pile, in place of the one before."""
        self._kept.pop(topic, None)
        self._kept[topic] = (offsets, pile)
        if len(self._kept) > PILES_MAX:
            self._kept.popitem(last=False)
