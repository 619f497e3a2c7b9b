"""Settings: of a topic (Kafka's names and meanings) and of the server (environment `LOGSVC_*` or the command line).

The only module that reads the environment.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from logsvc_common.errors import InvalidConfig
from logsvc_common.messages import CONSUMER_BYTE_RATE, IN_FLIGHT_BYTES, PRODUCER_BYTE_RATE


class TopicConfig(msgspec.Struct, frozen=True, rename=lambda name: name.replace("_", ".")):
    """Settings of one topic. On the wire and in files they carry Kafka's names: `segment.bytes`, `retention.ms`, …

    `flush` says what an ack means: `always` = fsynced (the default); `interval` = written, fsynced every
    `flush.interval.ms`, so a power cut may take the last interval; `os` = written, fsynced when the system likes.
    """

    segment_bytes: int = 128 << 20
    segment_ms: int = 7 * 86_400_000
    index_interval_bytes: int = 4_096
    retention_ms: int = 7 * 86_400_000
    retention_bytes: int = -1
    max_message_bytes: int = 4 << 20
    flush: str = "always"
    flush_interval_ms: int = 1_000
    cleanup_policy: str = "delete"
    delete_retention_ms: int = 86_400_000

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> "TopicConfig":
        """From text values, as a command line gives them. Raises InvalidConfig naming the setting that is wrong."""
        values: dict[str, int | str] = {}
        for name, text in mapping.items():
            rule = _RULES.get(name)
            if rule is None:
                raise InvalidConfig(f"unknown topic setting {name[:_SHOWN_CHARACTERS]!r}; there are {', '.join(_RULES)}")
            values[name] = rule(name, text)
        return msgspec.convert(values, cls)

    def to_mapping(self) -> dict[str, str]:
        """Every setting as text, by its name."""
        return {name: str(value) for name, value in msgspec.to_builtins(self).items()}


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,19}\Z")
_SHOWN_CHARACTERS = 100  # of a wrong value, in the error about it


def _number(low: int, high: int = (1 << 62), *, unlimited: bool = False) -> Callable[[str, str], int]:
    def rule(name: str, text: str) -> int:
        # Not int() alone: it takes spaces, underscores and the digits of every script, and text of any length.
        if not _WHOLE_NUMBER.match(text):
            raise InvalidConfig(f"{name} is {text[:_SHOWN_CHARACTERS]!r}; it takes a whole number")
        value = int(text)
        if (unlimited and value == -1) or low <= value <= high:
            return value
        raise InvalidConfig(f"{name} is {value}; it lies between {low} and {high}{', or is -1' if unlimited else ''}")

    return rule


def _choice(*choices: str) -> Callable[[str, str], str]:
    def rule(name: str, text: str) -> str:
        if text not in choices:
            raise InvalidConfig(f"{name} is {text[:_SHOWN_CHARACTERS]!r}; it takes {', '.join(choices)}")
        return text

    return rule


_RULES: dict[str, Callable[[str, str], Any]] = {
    "segment.bytes": _number(1_024, (1 << 31) - 1),  # positions in an index are 32 bits, signed
    "segment.ms": _number(1),
    "index.interval.bytes": _number(0, 1 << 30),
    "retention.ms": _number(0, unlimited=True),
    "retention.bytes": _number(0, unlimited=True),
    "max.message.bytes": _number(128, 64 << 20),
    "flush": _choice("always", "interval", "os"),
    "flush.interval.ms": _number(1),
    "cleanup.policy": _choice("delete", "compact", "compact,delete"),
    "delete.retention.ms": _number(0),
}


class ServerSettings(BaseSettings):
    """How one broker runs. Every field is also the environment variable `LOGSVC_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="LOGSVC_", extra="ignore", frozen=True)

    data_dir: str = Field(default="./logsvc-data", description="folder of the log; made with mode 0700")
    bind: str = Field(default="tcp://127.0.0.1:9292", description="where clients connect; port 0 = any free one")
    http_host: str = Field(default="127.0.0.1", description="where metrics and health are served")
    http_port: int = Field(default=9293, ge=-1, le=65_535, description="0 = any free one, -1 = none")
    http_allowed_hosts: str = Field(default="", description="more names that browsers may reach the console by; commas between")
    console_writes: bool = Field(default=False, description="let the console and the HTTP API change things")
    frame_bytes_max: int = Field(default=72 << 20, ge=1 << 20, description="largest frame a peer may send")
    in_flight_bytes_max: int = Field(default=256 << 20, description="request bytes being worked on, all peers together")
    peer_queue_bytes_max: int = Field(default=64 << 20, description="answers waiting for one slow peer")
    queue_bytes_max: int = Field(default=512 << 20, description="answers waiting for slow peers, all together")
    quota_producer_byte_rate: int = Field(default=-1, description="bytes a second from one client id; -1 = no limit")
    quota_consumer_byte_rate: int = Field(default=-1, description="bytes a second to one client id; -1 = no limit")
    quota_in_flight_bytes: int = Field(default=-1, description="request bytes of one client id being worked on; -1 = no limit")
    partitions_max: int = Field(default=10_000, description="partitions of one broker")
    scrub_bytes_per_second: int = Field(default=4 << 20, ge=0, description="what the scrubber reads again; 0 = nothing")
    scrub_interval_ms: int = Field(default=86_400_000, ge=0, description="how often the scrubber begins to read them all")
    retention_check_ms: int = Field(default=60_000, ge=10, description="how often retention runs")
    disk_reserve_bytes: int = Field(default=64 << 20, description="free disk space below which writes are refused")
    shutdown_timeout_ms: int = Field(default=10_000, description="how long SIGTERM waits for requests being worked on")
    sync_threads: int = Field(default=4, ge=2, le=64, description="threads that fsync and compact")
    log_json: bool = Field(default=False, description="log as JSON lines")
    kafka_exporter_metrics: bool = Field(default=False, description="serve metrics under kafka_exporter's names too")

    @field_validator("quota_producer_byte_rate", "quota_consumer_byte_rate", "quota_in_flight_bytes")
    @classmethod
    def _quota_is_a_limit(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError("1 at least, or -1 for no limit")
        return value

    def quotas(self) -> dict[str, int]:
        """The quotas of every client that has none of its own, by name."""
        return {
            PRODUCER_BYTE_RATE: self.quota_producer_byte_rate,
            CONSUMER_BYTE_RATE: self.quota_consumer_byte_rate,
            IN_FLIGHT_BYTES: self.quota_in_flight_bytes,
        }
