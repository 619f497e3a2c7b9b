"""The OpenAPI document is true: every route is in it, and every answer it promises is given and fits."""

from collections.abc import Iterator

import jsonschema
import pytest
from starlette.routing import Route

from logsvc.listeners.api.errors import STATUSES, code_of, status_of
from logsvc.listeners.api.operations import PREFIX
from logsvc.listeners.api.routes import routes
from logsvc_common import errors
from logsvc_common.batch import RecordData
from logsvc_common.errors import LogsvcError
from tests.unit.listeners.api.contract import api_document, find
from tests.unit.listeners.api.world import World, world

DLQ = "dlq.orders.billing"
PARTITION = "/topics/orders/partitions/0/records"

# What to send so that each documented answer is given: path, body, status. Answers that any operation gives for the same reason
# (403 by host, 413, 415) are asked of all of them.
READS = [
    ("/broker", 200),
    ("/broker/history", 200),
    ("/session", 200),
    ("/topics", 200),
    ("/topics/orders", 200),
    ("/topics/a%20b", 400),
    ("/topics/nope", 404),
    (PARTITION, 200),
    (f"{PARTITION}?limit=0", 400),
    ("/topics/nope/partitions/0/records", 404),
    (f"{PARTITION}/0/value", 200),
    (f"{PARTITION}/1/value", 204),
    (f"{PARTITION}/x/value", 400),
    (f"{PARTITION}/99/value", 404),
    ("/topics/orders/records?key=k", 200),
    ("/topics/orders/records", 400),
    ("/topics/nope/records?key=k", 404),
    ("/groups", 200),
    ("/groups/billing", 200),
    ("/groups/a%20b", 400),
    ("/groups/nope", 404),
    ("/groups/billing/history", 200),
    ("/groups/a%20b/history", 400),
    ("/groups/nope/history", 404),
    ("/dead-letters", 200),
    (f"/dead-letters/{DLQ}/letters", 200),
    (f"/dead-letters/{DLQ}/letters?after=x", 400),
    ("/dead-letters/dlq.no/letters", 404),
    ("/redrives", 200),
    ("/redrives?nope=1", 400),
    ("/redrives/{redrive}", 200),
    ("/redrives/x", 400),
    ("/redrives/999", 404),
]
WRITES = [
    (f"/dead-letters/{DLQ}/redrive", {"where": {"nope": 1}}, 400),
    (f"/dead-letters/{DLQ}/redrive", {}, 200),
    ("/dead-letters/dlq.no/redrive", {}, 404),
    ("/redrives/{redrive}/cancel", {}, 200),
    ("/redrives/x/cancel", {}, 400),
    ("/redrives/999/cancel", {}, 404),
    ("/groups/billing/resume", {}, 200),
    ("/groups/billing/resume", {"partition": -1}, 400),
    ("/groups/nope/resume", {}, 404),
    (f"/dead-letters/{DLQ}/purge", {"confirm": DLQ}, 200),
    (f"/dead-letters/{DLQ}/purge", {}, 400),
    ("/dead-letters/dlq.no/purge", {"confirm": "dlq.no"}, 404),
    ("/topics/orders/delete", {}, 400),
    ("/topics/nope/delete", {"confirm": "nope"}, 404),
    ("/topics/orders/delete", {"confirm": "orders"}, 200),
]


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with world() as running:
        yield running


def test_the_document_is_served_and_is_openapi_3_1(api: World) -> None:
    answer = api.get("/api/v1/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == api_document()
    assert answer.json["openapi"] == "3.1.0"
    for schema in answer.json["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_route_is_documented_and_every_path_documented_is_a_route(api: World) -> None:
    there = {
        (method, route.path)
        for route in routes(api.backend)
        if isinstance(route, Route) and route.methods is not None
        for method in route.methods - {"HEAD"}
    }
    told = {(method.upper(), path) for path, methods in api_document()["paths"].items() for method in methods}
    assert there - {("GET", f"{PREFIX}/openapi.json")} == told


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = api_document()
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            found.extend(ref for name, ref in value.items() if name == "$ref")
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert found
    assert {ref.removeprefix("#/components/schemas/") for ref in found} <= document["components"]["schemas"].keys()


def test_operations_have_names_summaries_and_described_parameters() -> None:
    operations = [operation for methods in api_document()["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"], operation["operationId"]
        for parameter in operation["parameters"]:
            assert parameter["schema"], parameter
            assert parameter["description"], f"{operation['operationId']}: {parameter['name']}"


def test_every_answer_documented_is_given_and_fits_its_schema(api: World) -> None:
    # Given a broker with a topic, a group, letters, and a redrive that runs
    api.topic("orders")
    api.produce("orders", [RecordData(b"1", b"k"), RecordData(None, b"k"), RecordData(b"\x00", b"\xff", 5, [("h", None)])])
    api.fail("orders", "billing", {0: "ValueError: no", 1: "TypeError: no"})
    redrive = api.post(f"{PREFIX}/dead-letters/{DLQ}/redrive", {"rate": 1}).json["id"]
    seen: set[tuple[str, str, str]] = set()

    def note(method: str, target: str, status: int, expected: int) -> None:
        assert status == expected, f"{method} {target}"
        operation = find(method, target.partition("?")[0])
        assert operation is not None
        seen.add((method, operation.path, str(status)))

    # When everything is asked for that the document knows an answer to; `request` holds each against its schema
    for path, expected in READS:
        target = PREFIX + path.format(redrive=redrive)
        note("GET", target, api.get(target).status, expected)
        note("GET", target, api.get(target, host="evil.example").status, 403)
    for path, body, expected in WRITES:
        target = PREFIX + path.format(redrive=redrive)
        note("POST", target, api.post(target, raw=b" " * 70_000).status, 413)
        note("POST", target, api.post(target, content_type="text/plain").status, 415)
        note("POST", target, api.post(target, x_logsvc_token="x").status, 403)
        note("POST", target, api.post(target, body).status, expected)
    # Then none of them is missing.
    told = {
        (method.upper(), path, status)
        for path, methods in api_document()["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status != "default"
    }
    assert seen == told


def every_error(error: type[LogsvcError] = LogsvcError) -> Iterator[type[LogsvcError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every_error(child)


@pytest.mark.parametrize("error", list(every_error()), ids=lambda error: error.__name__)
def test_every_typed_error_has_a_status_of_its_own_choice(error: type[LogsvcError]) -> None:
    assert 400 <= status_of(error) < 600
    # Those that travel are named in the table, not merely covered by a base.
    if error.code > 0:
        assert error in STATUSES


def test_the_table_names_nothing_that_is_gone() -> None:
    assert set(STATUSES) <= set(every_error())


def test_codes_are_the_names_of_the_errors() -> None:
    assert code_of(errors.UnknownTopic) == "UNKNOWN_TOPIC"
    assert code_of(errors.FencedInstanceId) == "FENCED_INSTANCE_ID"
    assert len({code_of(error) for error in every_error()}) == len(list(every_error()))
