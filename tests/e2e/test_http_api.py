"""The HTTP API of a broker that runs as users run it: over a real socket, beside clients, with its options and its log."""

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, RetryPolicy


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(broker: BrokerProcess, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    """One request; `content_type=...` becomes Content-Type."""
    assert broker.http_url is not None
    parts = urlsplit(broker.http_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Reply(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def change(broker: BrokerProcess, path: str, body: object) -> Reply:
    """A write, as a script does it."""
    token = ask(broker, "GET", "/api/v1/session").json["token"]
    return ask(broker, "POST", path, json.dumps(body).encode(), content_type="application/json", x_logsvc_token=token)


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process(None, "--console-writes", "--http-allowed-hosts", "logs.example") as running:
        yield running


def test_what_clients_do_is_seen_and_redriven(broker: BrokerProcess) -> None:
    # Given records of which a group has failed two
    with Admin(broker.server) as admin:
        admin.create_topic("orders", partitions=2)
    with Producer(broker.server, compression="zstd") as producer:
        for number in range(10):
            producer.send("orders", b"%d" % number, key=b"k%d" % number)
        producer.flush()

    def handle_all(consumer: Consumer, *, fails: bool) -> list[bytes]:
        handled: list[bytes] = []
        idle = 0
        while idle < 3:
            records = consumer.poll(500)
            idle = 0 if records else idle + 1
            for record in records:
                if fails and record.value in (b"3", b"7"):
                    consumer.fail(record, ValueError("no " + record.value.decode()))
                else:
                    handled.append(record.value or b"")
        return handled

    policy = RetryPolicy(max_attempts=1)
    with Consumer("orders", group_id="billing", server=broker.server, retry=policy) as consumer:
        assert len(handle_all(consumer, fails=True)) == 8
    # When they are looked at and put back over HTTP
    letters = ask(broker, "GET", "/api/v1/dead-letters/dlq.orders.billing/letters").json["letters"]
    assert sorted(letter["value"]["text"] for letter in letters) == ["3", "7"]
    begun = change(broker, "/api/v1/dead-letters/dlq.orders.billing/redrive", {"where": {"error": "no 7"}})
    assert begun.status == 200
    # Then the group gets that one again, and the broker's log tells who has asked.
    with Consumer("orders", group_id="billing", server=broker.server, retry=policy) as consumer:
        assert handle_all(consumer, fails=False) == [b"7"]
    assert f"redrive {begun.json['id']} of dlq.orders.billing begun over HTTP by 127.0.0.1:" in broker.log_path.read_text()


def test_the_token_is_another_after_a_restart() -> None:
    with broker_process(None, "--console-writes") as broker:
        before = ask(broker, "GET", "/api/v1/session").json["token"]
        broker.stop()
        broker.start()
        after = ask(broker, "GET", "/api/v1/session").json["token"]
    assert len(before) >= 40
    assert before != after


def test_without_the_option_nothing_can_be_changed() -> None:
    with broker_process() as broker:
        assert ask(broker, "GET", "/api/v1/session").json == {"writes": False, "token": None}
        answer = ask(broker, "POST", "/api/v1/groups/g/resume", b"{}", content_type="application/json", x_logsvc_token="None")
        assert (answer.status, answer.json["error"]["code"]) == (403, "WRITES_DISABLED")


def test_hosts_that_were_allowed_are_answered_and_others_are_not(broker: BrokerProcess) -> None:
    assert ask(broker, "GET", "/api/v1/broker", host="logs.example").status == 200
    assert ask(broker, "GET", "/api/v1/broker", host="evil.example").status == 403
    assert ask(broker, "GET", "/metrics", host="evil.example").status == 403
    assert ask(broker, "GET", "/metrics", host="192.0.2.1:9293").status == 200


def test_the_console_is_served_and_head_tells_its_size(broker: BrokerProcess) -> None:
    page = ask(broker, "GET", "/console/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    head = ask(broker, "HEAD", "/console/")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(page.body)))
    assert ask(broker, "GET", "/").headers["location"] == "/console/"


def test_a_body_that_is_too_large_is_refused_while_it_comes(broker: BrokerProcess) -> None:
    token = ask(broker, "GET", "/api/v1/session").json["token"]
    body = b" " * (1 << 20)
    answer = ask(broker, "POST", "/api/v1/groups/g/resume", body, content_type="application/json", x_logsvc_token=token)
    assert (answer.status, answer.json["error"]["code"]) == (413, "BODY_TOO_LARGE")
    assert ask(broker, "GET", "/readyz").status == 200
