"""Mutations of bytes and of msgpack trees, drawn from one generator: cheap ones, because there are millions.

A mutation knows nothing of what it is applied to; the targets add those that know where the fields of a header lie.
"""

from random import Random
from typing import Any

# Lengths, counts and offsets like to go wrong at these.
NUMBERS = (
    0,
    1,
    -1,
    2,
    48,
    49,
    60,
    61,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    -(1 << 31),
)
LARGE = (1 << 40, (1 << 63) - 1, -(1 << 63), 1 << 62, (1 << 64) - 1)
# Bytes that mean something in msgpack (arrays, maps, strings, binaries, extensions, floats, nil) and in varints.
BYTES = (0x00, 0x01, 0x7F, 0x80, 0x81, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC4, 0xC6, 0xC7, 0xCA, 0xCB, 0xCF, 0xD3, 0xD9, 0xDB)
BYTES_2 = (0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFE, 0xFF)
LEAVES: tuple[Any, ...] = (
    None,
    True,
    False,
    0.5,
    float("nan"),
    "",
    "x",
    "\x00",
    "ä" * 40,
    b"",
    b"\xff" * 9,
    [],
    {},
    [[]],
    [None] * 40,
)
STEPS_MAX = 3  # mutations of one input
GROWTH_MAX = 4_096  # bytes one mutation may add


def mutate_bytes(rng: Random, data: bytearray, donor: bytes) -> None:
    """One change, in place; `donor` is another input to take a piece from."""
    size = len(data)
    at = rng.randrange(size) if size else 0
    match rng.randrange(9):
        case 0 if size:
            data[at] ^= 1 << rng.randrange(8)
        case 1 if size:
            data[at] = rng.choice(BYTES)
        case 2 if size:
            data[at] = rng.choice(BYTES_2)
        case 3:
            del data[at:]
        case 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case 5 if size:
            del data[at : at + rng.randrange(1, 17)]
        case 6 if size:
            width = rng.choice((2, 4, 8))
            data[at : at + width] = (rng.choice(NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, "big")
        case 7 if size:
            end = min(size, at + rng.randrange(1, 65))
            data[at:at] = data[at:end] * rng.randrange(1, 4)
        case _:
            begin = rng.randrange(len(donor)) if donor else 0
            data[at : at + rng.randrange(64)] = donor[begin : begin + min(GROWTH_MAX, rng.randrange(1, 65))]


def mutate_tree(rng: Random, tree: Any) -> Any:
    """The tree with one node replaced, dropped, doubled or wrapped."""
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        at = rng.randrange(len(tree))
        match rng.randrange(8):
            case 0:
                return tree[:at] + tree[at + 1 :]
            case 1:
                return tree[:at] + [tree[at]] * rng.choice((2, 3, 200)) + tree[at + 1 :]
            case 2:
                return tree + [_leaf(rng)]
            case _:
                return [*tree[:at], mutate_tree(rng, tree[at]), *tree[at + 1 :]]
    if isinstance(tree, dict) and tree and rng.random() < 0.8:
        key = rng.choice(list(tree))
        return {**tree, key: mutate_tree(rng, tree[key])}
    if isinstance(tree, int) and not isinstance(tree, bool) and rng.random() < 0.7:
        return rng.choice((tree + 1, tree - 1, -tree, *NUMBERS, *LARGE)) if -(1 << 62) < tree < 1 << 62 else 0
    if isinstance(tree, str) and rng.random() < 0.5:
        return rng.choice((tree * 2, tree[:-1], tree + "\x00", "../" + tree, tree * 60))
    return _leaf(rng)


def _leaf(rng: Random) -> Any:
    return rng.choice(LEAVES) if rng.random() < 0.6 else rng.choice(NUMBERS + LARGE)


def nested(depth: int) -> bytes:
    """Arrays within arrays: what makes a recursive decoder run out of stack."""
    return b"\x91" * depth + b"\xc0"
