"""Settings of a topic: Kafka's names, text in and text out, and a reason for what is refused."""

import pytest

from logsvc.config import TopicConfig
from logsvc_common.errors import InvalidConfig


def test_every_setting_survives_the_way_to_text_and_back() -> None:
    default = TopicConfig()
    text = default.to_mapping()
    assert text["max.message.bytes"] == str(4 << 20)
    assert text["flush"] == "always"
    assert TopicConfig.from_mapping(text) == default
    changed = TopicConfig.from_mapping({"segment.bytes": "4096", "retention.ms": "-1", "flush": "os"})
    assert (changed.segment_bytes, changed.retention_ms, changed.flush) == (4_096, -1, "os")
    assert TopicConfig.from_mapping(changed.to_mapping()) == changed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no.such.setting", "1"),
        ("segment_bytes", "4096"),
        ("segment.bytes", ""),
        ("segment.bytes", "many"),
        ("segment.bytes", "1e6"),
        ("segment.bytes", "1023"),
        ("segment.bytes", str(1 << 31)),
        ("segment.bytes", "9" * 5_000),
        ("segment.ms", "0"),
        ("retention.ms", "-2"),
        ("retention.ms", "1_000"),
        ("retention.ms", "١٢"),
        ("retention.ms", " 5"),
        ("retention.bytes", "-2"),
        ("max.message.bytes", "127"),
        ("max.message.bytes", str((64 << 20) + 1)),
        ("flush", "sometimes"),
        ("flush", "ALWAYS"),
        ("flush.interval.ms", "0"),
        ("cleanup.policy", "burn"),
        ("delete.retention.ms", "-1"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        TopicConfig.from_mapping({name: text})
    assert name in caught.value.message
    assert len(caught.value.message) < 1_000
