"""Hypothesis strategies for every message, built from the types of its fields."""

import types
import typing
from typing import Any

import msgspec
from hypothesis import strategies as st

from logsvc_common.breaker import BreakerConfig
from logsvc_common.messages import Message
from logsvc_common.retry import RetryPolicy

INT64 = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)
TEXT = st.text(max_size=20)

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1_000_000),
    initial_ms=st.integers(0, 10_000),
    max_ms=st.integers(10_000, 31_000_000_000),
    multiplier=st.floats(1.0, 100.0),
    jitter=st.floats(0.0, 1.0),
    no_retry=st.lists(TEXT, max_size=3).map(tuple),
    on_exhausted=st.sampled_from(["dead-letter", "pause", "discard"]),
    ordering=st.sampled_from(["key", "partition", "none"]),
)

BREAKERS = st.builds(
    BreakerConfig,
    enabled=st.booleans(),
    threshold=st.floats(0.01, 1.0),
    window_ms=st.integers(10, 3_600_000),
    min_failures=st.integers(1, 1_000_000),
    open_ms=st.integers(1, 10_000),
    open_max_ms=st.integers(10_000, 86_400_000),
    probes=st.integers(1, 1_000_000),
)


def of_type(wanted: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Annotated:
        return of_type(inner[0])
    if origin in (types.UnionType, typing.Union):
        return st.one_of([of_type(choice) for choice in inner])
    if origin is list:
        return st.lists(of_type(inner[0]), max_size=4)
    if origin is tuple:
        return st.tuples(*[of_type(choice) for choice in inner])
    if origin is dict:
        return st.dictionaries(of_type(inner[0]), of_type(inner[1]), max_size=4)
    if wanted is RetryPolicy:
        return POLICIES
    if wanted is BreakerConfig:
        return BREAKERS
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return of_message(wanted)
    return {int: INT64, float: st.floats(allow_nan=False), str: TEXT, bool: st.booleans(), type(None): st.none()}[wanted]


def of_message(message: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Messages of a type, every field drawn."""
    hints = typing.get_type_hints(message, include_extras=True)
    fields = {name: of_type(hints[name]) for name in message.__struct_fields__}
    return st.builds(message, **fields) if fields else st.just(message())


def of_any(choices: typing.Iterable[type[Message]]) -> st.SearchStrategy[Any]:
    return st.one_of([of_message(choice) for choice in choices])
