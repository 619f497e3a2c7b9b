"""Kafka's placement: the vectors are those of `org.apache.kafka.common.utils.UtilsTest.testMurmur2`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logsvc_client.partitioner import next_sticky, partition_for
from logsvc_common import keys
from logsvc_common.keys import murmur2, murmur2_pure

KAFKA_VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "signed"), KAFKA_VECTORS)
def test_hash_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF
    assert murmur2_pure(key) == signed & 0xFFFFFFFF


def test_compiled_hash_is_in_use() -> None:
    assert keys._compiled is not None


@given(st.binary(max_size=100))
def test_pure_fallback_agrees_with_the_compiled_hash(key: bytes) -> None:
    assert murmur2_pure(key) == murmur2(key)


@pytest.mark.parametrize(("key", "signed"), KAFKA_VECTORS)
def test_key_lands_where_kafka_puts_it(key: bytes, signed: int) -> None:
    assert partition_for(key, 7) == (signed & 0x7FFFFFFF) % 7


@given(st.integers(1, 50), st.integers(0, 2**31 - 1), st.integers(-1, 49))
def test_sticky_placement_moves_to_another_partition_when_there_is_one(count: int, choice: int, current: int) -> None:
    current = min(current, count - 1)
    chosen = next_sticky(current, count, choice)
    assert 0 <= chosen < count
    assert chosen != current or count == 1
