"""docs/limits.md is true: every default in it is the code's, and every limit of the code is in it."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from logsvc.config import ServerSettings, TopicConfig
from logsvc.coordinator.limits import CoordinatorLimits
from logsvc_client import Consumer, Producer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "limits.md"
UNITS = {
    "": 1,
    "characters": 1,
    "bytes": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "ms": 1,
    "s": 1_000,
    "min": 60_000,
}
ROW = re.compile(
    r"^\| (?P<limit>[^|]+) \| (?P<default>none|[\d,]+)(?: (?P<unit>\w+))? \| `(?P<name>[^`]+)` \| [^|]+ \|$", re.MULTILINE
)

# Constants with the name of a limit that nobody can meet: sizes of steps, of what is shown, of formats.
NOT_MET = {
    "logsvc.broker.admin.PRODUCER_EPOCH_MAX",
    "logsvc.broker.client_quotas.SWEEP_MAX",
    "logsvc.broker.dead_letters.LOOKED_MAX",
    "logsvc.broker.group_commit.INLINE_SECONDS_MAX",
    "logsvc.broker.lag_clock.SHARED_PER_STEP_MAX",
    "logsvc.broker.lag_clock.STEP_SECONDS_MAX",
    "logsvc.broker.lag_clock.UPKEEP_SECONDS_MAX",
    "logsvc.broker.record_reader.BATCHES_BYTES_MAX",
    "logsvc.broker.record_reader.BATCHES_MAX",
    "logsvc.broker.scrubber.PARTITIONS_PER_TURN_MAX",
    "logsvc.listeners.api.pile_cache.PILES_MAX",
    "logsvc.listeners.api.piles.PILES_MS_MAX",
    "logsvc.listeners.api.piles.PILE_LETTERS_MAX",
    "logsvc.listeners.api.redrives.RATE_MAX",
    "logsvc.listeners.api.shown.HEADERS_MAX",
    "logsvc.listeners.api.shown.HEADER_BYTES_MAX",
    "logsvc.listeners.api.shown.TEXT_CHARACTERS_MAX",
    "logsvc.listeners.api.shown.VALUE_BYTES_MAX",
    "logsvc.listeners.console_files.FILES_MAX",
    "logsvc.listeners.http.NAMED_PARTITIONS_MAX",
    "logsvc_client.accumulator.RESTARTS_MAX",
    "logsvc_client.accumulator.RETRY_BACKOFF_MAX_MS",
    "logsvc_client.commits.EPOCH_RETRIES_MAX",
    "logsvc_client.connection.RECONNECT_MAX_MS",
    "logsvc_client.described.ERROR_CHARACTERS_MAX",
    "logsvc_client.described.FRAMES_REMEMBERED_MAX",
    "logsvc_client.described.STACKTRACE_CHARACTERS_MAX",
    "logsvc_client.transport.CALL_RETRY_MAX_MS",
    "logsvc_client.transport.ZMQ_RECONNECT_MAX_MS",
}
ROOMS = ("logsvc/broker", "logsvc/listeners", "clients/logsvc_client")
CONSTANT = re.compile(r"^([A-Z][A-Z0-9_]*_MAX(?:_MS|_BYTES|_SECONDS)?) *=", re.MULTILINE)


class Row(NamedTuple):
    limit: str
    default: int | None
    name: str


def rows() -> list[Row]:
    found = []
    for match in ROW.finditer(PAGE.read_text()):
        default = None if match["default"] == "none" else int(match["default"].replace(",", "")) * UNITS[match["unit"] or ""]
        found.append(Row(match["limit"], default, match["name"]))
    return found


def in_code(name: str) -> int:
    """The default of a limit, times in milliseconds."""
    if name.startswith("LOGSVC_"):
        default = ServerSettings.model_fields[name.removeprefix("LOGSVC_").lower()].default
    elif called := re.fullmatch(r"(Producer|Consumer)\((\w+)\)", name):
        default = inspect.signature({"Producer": Producer, "Consumer": Consumer}[called[1]]).parameters[called[2]].default
    elif name.startswith("CoordinatorLimits."):
        default = getattr(CoordinatorLimits(), name.partition(".")[2])
    elif name in (known := TopicConfig().to_mapping()):
        default = int(known[name])
    else:
        module, _, constant = name.rpartition(".")
        default = getattr(import_module(module), constant)
        if constant.endswith("SECONDS_MAX"):
            default *= 1_000
    assert isinstance(default, int | float)
    return round(default)


def constants() -> Iterator[str]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT / "clients" if room.startswith("clients") else ROOT).with_suffix("").parts)
            yield from (f"{module}.{name}" for name in CONSTANT.findall(path.read_text()))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_default_is_the_codes(row: Row) -> None:
    assert in_code(row.name) == (-1 if row.default is None else row.default)


def test_every_row_of_the_page_is_understood() -> None:
    written = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and line.count("|") == 5]
    heads = [line for line in written if line.startswith("| limit |")]
    assert len(written) - len(heads) == len(rows()) > 90
    assert len({row.name for row in rows()}) == len(rows())


def test_no_limit_is_missing() -> None:
    told = {row.name for row in rows()}
    missing = set(constants()) - told - NOT_MET
    assert not missing, f"add {sorted(missing)} to docs/limits.md, or to NOT_MET if nobody can meet them"
    gone = NOT_MET - set(constants())
    assert not gone, f"NOT_MET names what is gone: {sorted(gone)}"


def test_no_setting_that_is_a_limit_is_missing() -> None:
    told = {row.name for row in rows()}
    limits = [name for name in ServerSettings.model_fields if name.endswith("_max") or name.startswith("quota_")]
    assert {f"LOGSVC_{name.upper()}" for name in limits} - told == set()
