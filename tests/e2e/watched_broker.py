"""A broker that has everything a dashboard shows, watched by a real Prometheus: built once, about half a minute.

* demo: the demo's job, several times: real retries and dead letters; some are redriven in between
* idle: has consumed everything; a member stays
* bursty: bursts of records, each consumed half and then whole
* stopped: consumed a few records and left; records go on coming
* stuck: stays a member and does not get past a record of two minutes ago
* callers: what its handler calls is dead, so its breaker opens
* damaged-0: a partition with a changed bit, so read-only

Beside it Prometheus is told of a broker where nobody listens, and of itself, which is no broker.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from logsvc.cli import demo
from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy
from logsvc_common.errors import UnknownTopic
from tests.e2e.ledger import Ledger
from tests.e2e.prometheus_server import Prometheus, prometheus

ROOT = Path(__file__).parents[2]
RULES = ROOT / "dashboards" / "alerts" / "*.yml"
REAL_LOG = ROOT.parent / "shared" / "data" / "nasa_access_log_aug95_1930.log"

ROUNDS = 4
PAUSE_S = 1.4
STUCK_AGE_S = 120.0
REDRIVEN = 20
NOBODY = "127.0.0.1:9"  # the discard port: a broker that is down
JOIN_S = 60.0
LEDGERS = ("idle", "bursty", "stopped", "stuck")


class Watched(NamedTuple):
    """The broker after its load, still running, and what is known about it. `target` is its HOST:PORT for metrics."""

    broker: BrokerProcess
    prometheus: Prometheus
    target: str
    ledgers: dict[str, Ledger]
    reports: list[demo.Report]


@contextmanager
def watched_broker(folder: Path) -> Iterator[Watched]:
    """Build it, let it run, and hand it over while it still runs."""
    with ExitStack() as stack:
        broker = stack.enter_context(broker_process(folder / "data", "--log-level", "warning"))
        _damage(broker)
        with Admin(broker.server) as admin:
            for name in (*LEDGERS, "calls"):
                admin.create_topic(name)
        ledgers = {name: stack.enter_context(Ledger(broker.server, name, name)) for name in LEDGERS}
        _settle(ledgers)
        assert broker.http_url is not None
        target = broker.http_url.removeprefix("http://")
        watcher = stack.enter_context(prometheus(folder / "prometheus", RULES, [target, NOBODY]))
        reports: list[demo.Report] = []
        stack.enter_context(_calling_the_dead(broker.server))
        _load(broker.server, ledgers, reports)
        yield Watched(broker, watcher, target, ledgers, reports)


def _damage(broker: BrokerProcess) -> None:
    """A bit of the topic's only partition is changed while the broker is down; it finds out at its start."""
    with Admin(broker.server) as admin:
        admin.create_topic("damaged")
    with Producer(broker.server) as producer:
        for _ in range(3):
            producer.send("damaged", b"x" * 1_000).result(10)
    broker.stop()
    partition = broker.data_dir / "damaged-0"
    (partition / "checkpoint").unlink()  # so that the log is read from its beginning
    [segment] = partition.glob("*.log")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    broker.start()


def _settle(ledgers: dict[str, Ledger]) -> None:
    """What has happened before anybody looks."""
    ledgers["idle"].produce(10)
    ledgers["idle"].consume(10)
    ledgers["bursty"].produce(1)
    ledgers["bursty"].consume(1)
    ledgers["stopped"].produce(20)
    ledgers["stopped"].consume(10)
    ledgers["stopped"].leave()
    ledgers["stuck"].produce(10, age_s=STUCK_AGE_S)
    ledgers["stuck"].consume(1)


@contextmanager
def _calling_the_dead(server: str) -> Iterator[None]:
    """A group whose handler fails every time, for as long as the block runs."""
    with Producer(server) as producer:
        for number in range(60):
            producer.send("calls", b"call", key=b"%d" % number)

    def call(record: Record) -> None:
        raise ConnectionError("nobody answers")

    with Consumer("calls", group_id="callers", server=server) as consumer:
        retry = RetryPolicy(max_attempts=5, initial_ms=200)
        worker = threading.Thread(target=consumer.run, args=(call,), kwargs={"retry": retry}, name="caller")
        worker.start()
        try:
            yield
        finally:
            consumer.stop()
            worker.join(JOIN_S)


def _load(server: str, ledgers: dict[str, Ledger], reports: list[demo.Report]) -> None:
    demos = threading.Thread(target=_run_demos, args=(server, reports), name="demos")
    demos.start()
    for _ in range(ROUNDS):
        ledgers["bursty"].produce(50)
        ledgers["stopped"].produce(5)
        time.sleep(PAUSE_S)
        ledgers["bursty"].consume(25)
        time.sleep(PAUSE_S)
        ledgers["bursty"].consume(25)
        time.sleep(PAUSE_S)
    demos.join(JOIN_S)
    assert len(reports) == ROUNDS, "a run of the demo has failed"


def _run_demos(server: str, reports: list[demo.Report]) -> None:
    for number in range(ROUNDS):
        reports.append(demo.run(server, REAL_LOG if REAL_LOG.exists() else None))
        with Admin(server) as admin:
            if number == 0:
                admin.redrive(demo.GROUP, limit=REDRIVEN)
            try:
                admin.describe_topics(["no-such-topic"])  # an error, for those who count them
            except UnknownTopic:
                time.sleep(PAUSE_S)
