"""What the console is shown: a real broker process, and topics, groups and dead letters in it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from logsvc.cli import demo
from logsvc.cli.access_log import parse
from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.messages import ConfigureGroup

# A real web server's log, where it lies beside the repository; else the demo makes one up.
REAL_LOG = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasa_access_log_aug95_1930.log"
JOIN_SECONDS = 30.0

SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
HOSTILE_TOPIC = "hostile"
HOSTILE_GROUP = "careless"


@contextmanager
def demo_broker(*arguments: str) -> Iterator[tuple[BrokerProcess, demo.Report]]:
    """A broker in which the demo has run: topic `access-log`, group `demo`, its dead letters."""
    with broker_process(None, *arguments) as broker:
        report = demo.run(broker.server, REAL_LOG if REAL_LOG.exists() else None)
        assert report.problems == []
        if REAL_LOG.exists():
            assert (report.records_in, report.handled, report.dead_lettered, report.lag) == (1_930, 1_841, 89, 0)
        yield broker, report


def make_hostile(server: str) -> None:
    """Markup in a key, a value, a header, an error, an exception's name and a client's name: data, to be shown as it is."""
    hostile_class = type(SCRIPT, (Exception,), {"__module__": "builtins"})
    with Admin(server) as admin:
        admin.create_topic(HOSTILE_TOPIC)
    with Producer(server) as producer:
        header = {SCRIPT: SCRIPT.encode()}
        producer.send(HOSTILE_TOPIC, SCRIPT.encode(), key=SCRIPT.encode(), headers=header).result(timeout=10)
        producer.send(HOSTILE_TOPIC, b'{"n": 12345678901234567890, "list": [1, {}]}', key=b"json").result(timeout=10)
        producer.send(HOSTILE_TOPIC, bytes(range(64)), key=b"\xff\x00").result(timeout=10)
        producer.send(HOSTILE_TOPIC, None, key=b"gone").result(timeout=10)
    retry = RetryPolicy(max_attempts=1)
    with Consumer(HOSTILE_TOPIC, group_id=HOSTILE_GROUP, server=server, retry=retry, client_id=SCRIPT) as consumer:
        records: list[Record] = []
        while len(records) < 4:
            records += consumer.poll(500)
        consumer.fail(records[0], hostile_class(SCRIPT))
        consumer.commit()


@contextmanager
def working(
    server: str, handle: Callable[[Record], object], *, group: str = demo.GROUP, retry: RetryPolicy = demo.RETRY
) -> Iterator[None]:
    """A consumer of `access-log` at work, in a thread, while the block runs."""
    with Consumer(demo.TOPIC, group_id=group, server=server, client_id="worker") as consumer:
        thread = threading.Thread(target=lambda: consumer.run(handle, retry=retry), name="worker")
        thread.start()
        try:
            yield
        finally:
            consumer.stop()
            thread.join(JOIN_SECONDS)


def handle_line(record: Record) -> None:
    """What the demo's handler does: ValueError for a broken line."""
    parse(record.value or b"")


def make_group_behind(server: str, group: str) -> int:
    """`group` has read a few records of `access-log` and gone away; how many it has read."""
    with Consumer(demo.TOPIC, group_id=group, server=server) as consumer:
        records: list[Record] = []
        while not records:
            records = consumer.poll(500, max_records=10)
        consumer.commit()
    return len(records)


def make_paused_record(server: str, group: str) -> None:
    """A record of `access-log` that is out of tries and waits for an operator."""
    retry = RetryPolicy(max_attempts=1, on_exhausted="pause")
    with Admin(server) as admin:
        admin.configure_group(ConfigureGroup(group, enabled=False))
    with Consumer(demo.TOPIC, group_id=group, server=server, retry=retry) as consumer:
        records: list[Record] = []
        while not records:
            records = consumer.poll(500)
        consumer.fail(records[0], ValueError("no such customer"))
        consumer.commit()
