"""Which letters were redriven: blocks of ranges against a plain set."""

from hypothesis import given
from hypothesis import strategies as st

from logsvc.coordinator.redriven import BLOCK_LETTERS, RedrivenLetters

# Close together, and across the border of two blocks.
OFFSETS = st.integers(0, 30) | st.integers(BLOCK_LETTERS - 15, BLOCK_LETTERS + 15)


@given(steps=st.lists(st.lists(OFFSETS, max_size=10), max_size=6), start=OFFSETS)
def test_it_holds_what_was_added(steps: list[list[int]], start: int) -> None:
    redriven, model = RedrivenLetters(), set[int]()
    for offsets in steps:
        before = {block: found.ranges for block, found in redriven.blocks.items()}
        changed = redriven.adding(offsets)
        assert {block: found.ranges for block, found in redriven.blocks.items()} == before, "adding changes nothing itself"
        assert set(changed) == {offset // BLOCK_LETTERS for offset in offsets}
        for block, found in changed.items():
            redriven.put(block, found)
        model.update(offsets)
    for offset in [*range(35), *range(BLOCK_LETTERS - 20, BLOCK_LETTERS + 20)]:
        assert (offset in redriven) == (offset in model)
    left = next(offset for offset in range(start, 3 * BLOCK_LETTERS) if offset not in model)
    assert redriven.first_left(start) == left
    assert redriven.count(start) == sum(offset >= start for offset in model)
    for block, found in redriven.blocks.items():
        flat = [bound for bounds in found.ranges for bound in bounds]
        assert flat == sorted(flat)
        assert all(after[0] > before[1] + 1 for before, after in zip(found.ranges, found.ranges[1:], strict=False))
        assert {bound // BLOCK_LETTERS for bound in flat} == {block}


def test_all_letters_of_a_block_are_one_range() -> None:
    redriven = RedrivenLetters()
    for block, found in redriven.adding(range(2 * BLOCK_LETTERS)).items():
        redriven.put(block, found)
    assert [found.ranges for _, found in sorted(redriven.blocks.items())] == [
        ((0, BLOCK_LETTERS - 1),),
        ((BLOCK_LETTERS, 2 * BLOCK_LETTERS - 1),),
    ]
    assert redriven.first_left(5) == 2 * BLOCK_LETTERS
    for block in (0, 1):
        redriven.put(block, None)
    assert not redriven
