"""The HTTP API under nonsense: whatever path, parameters, headers or body come, the answer is JSON and never a 500."""

import json
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from logsvc.listeners.api.routes import OPERATIONS
from logsvc_common.batch import RecordData
from tests.unit.listeners.api.contract import api_document
from tests.unit.listeners.api.world import TOKEN, Answer, World, world

DLQ = "dlq.orders.billing"
READS = sorted({op.path for op in OPERATIONS if op.method == "GET"})
# Deleting and purging would leave nothing to ask for; their bodies never confirm, as `confirm` is never drawn.
WRITES = sorted({op.path for op in OPERATIONS if op.method == "POST"})
NAMES = sorted(
    {
        parameter["name"]
        for methods in api_document()["paths"].values()
        for operation in methods.values()
        for parameter in operation["parameters"]
        if parameter["in"] == "query"
    }
)
PARTS = {
    "topic": ["orders", DLQ, "__logsvc_groups", "nope"],
    "dead_letter_topic": [DLQ, "orders", "dlq.nope"],
    "group": ["billing", "nope"],
    "partition": ["0", "1", "2", "-1"],
    "offset": ["0", "2", "99"],
    "redrive_id": ["1", "2", "0"],
}
NUMBERS = st.integers(-(2**64), 2**64).map(str) | st.integers(-5, 12).map(str)
ODD = st.sampled_from(
    ["", "null", "true", "NaN", "1e9", " 1", "0x1", "+1", "1_0", "٣", "\x00", "%00", "../..", "a" * 5_000, "9" * 400, "\udcff"]
)
TEXTS = NUMBERS | ODD | st.text(max_size=20)


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with world() as running:
        running.topic("orders", 2)
        for first in range(0, 8, 2):
            running.produce("orders", [RecordData(b"v%d" % n, b"k", 1_000 + n, [("h", None)]) for n in range(first, first + 2)])
        running.fail("orders", "billing", {1: "ValueError: no", 3: "TypeError: no", 6: ""})
        yield running


def percent(text: str) -> str:
    return quote(text.encode("utf-8", "surrogateescape"), safe="")


@st.composite
def paths(draw: st.DrawFn, templates: list[str]) -> str:
    """A path of the API, its variable parts mostly plausible."""
    template = draw(st.sampled_from(templates))
    for name, plausible in PARTS.items():
        if "{" + name + "}" in template:
            part = draw(st.sampled_from(plausible) | TEXTS.filter(bool))
            template = template.replace("{" + name + "}", percent(part))
    return "/api/v1" + template


def check(answer: Answer) -> None:
    assert answer.status < 500, answer.body
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/json"
        assert answer.message


SETTINGS = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SETTINGS
@given(path=paths(READS), query=st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), TEXTS), max_size=4))
@example(path="/api/v1/topics/orders/partitions/0/records", query=[("offset", str(-(2**63)))])
@example(path="/api/v1/topics/orders/partitions/0/records", query=[("offset", str(2**63 - 1))])
@example(path="/api/v1/topics/orders/partitions/0/records", query=[("time_ms", str(2**63 - 1))])
@example(path=f"/api/v1/dead-letters/{DLQ}/letters", query=[("from_ms", str(2**63 - 1)), ("to_ms", "0")])
@example(path=f"/api/v1/dead-letters/{DLQ}/letters", query=[("after", "0.999999999999999999.0")])
@example(path=f"/api/v1/dead-letters/{DLQ}/letters", query=[("letter_from", str(2**63 - 1))])
def test_no_parameter_of_a_read_makes_the_broker_fail(api: World, path: str, query: list[tuple[str, str]]) -> None:
    pairs = [(name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")) for name, value in query]
    check(api.get(f"{path}?{urlencode(pairs)}"))


@SETTINGS
@given(path=paths(READS), raw=st.binary(max_size=40))
@example(path="/api/v1/nothing", raw=b"\x80")
def test_no_bytes_behind_the_question_mark_make_the_broker_fail(api: World, path: str, raw: bytes) -> None:
    check(api.get(f"{path}?{raw.decode('latin-1')}"))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["where", "dry_run", "rate", "limit", "request_id", "topic", "partition", "error", "offset_from", "offset_to"]
BODIES = st.dictionaries(
    st.sampled_from(FIELDS), VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3), max_size=4
)


@SETTINGS
@given(path=paths(WRITES), body=BODIES | VALUES)
def test_no_body_makes_the_broker_fail(api: World, path: str, body: object) -> None:
    check(api.post(path, raw=json.dumps(body).encode()))


@SETTINGS
@given(path=paths(WRITES), raw=st.binary(max_size=60))
def test_no_bytes_for_a_body_make_the_broker_fail(api: World, path: str, raw: bytes) -> None:
    check(api.post(path, raw=raw))


PAGES = ["/", "/console", "/console/", "/console/index.html", "/console/..%2f..%2fapp.py"]
HEADERS = ["host", "origin", "sec-fetch-site", "content-type", "x-logsvc-token", "if-none-match", "accept"]


@SETTINGS
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"]),
    path=paths(READS + WRITES)
    | st.sampled_from(["/", "/console", "/console/", "/console/index.html", "/console/..%2f..%2fapp.py"]),
    headers=st.dictionaries(st.sampled_from(HEADERS), st.text(st.characters(max_codepoint=255), max_size=20), max_size=3),
)
@example(method="POST", path="/api/v1/topics/orders/delete", headers={"x-logsvc-token": TOKEN})
def test_no_header_makes_the_broker_fail(api: World, method: str, path: str, headers: dict[str, str]) -> None:
    answer = api.request(method, path, headers)
    assert answer.status < 500, answer.body


def test_all_of_it_has_changed_nothing(api: World) -> None:
    assert "orders" in api.logs.topics
    assert api.records_of("orders") == 8
    assert api.records_of(DLQ) >= 3
