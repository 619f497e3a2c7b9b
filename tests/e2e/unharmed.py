"""What "the broker is unharmed" means, after whatever was done to it: a good client is served, promptly, by the same process,
and its log shows no fault of its own.
"""

import itertools
import os
import time
from pathlib import Path

from logsvc.testing import BrokerProcess
from logsvc_client import Admin, Producer
from tests.e2e.raw_peer import RawPeer

SERVED_WITHIN_S = 10.0
GOOD_TOPIC = "good"
LOG_BYTES_MAX = 1 << 20

_numbers = itertools.count(1)


def ensure_good_topic(broker: BrokerProcess) -> None:
    with Admin(broker.server) as admin:
        if GOOD_TOPIC not in {topic.topic for topic in admin.list_topics()}:
            admin.create_topic(GOOD_TOPIC)


def assert_unharmed(broker: BrokerProcess) -> None:
    """A good client writes a record and finds it where it was acknowledged, within SERVED_WITHIN_S."""
    os.kill(broker.pid, 0)
    started = time.monotonic()
    value = b"good %d" % next(_numbers)
    with Producer(broker.server, linger_ms=0, max_block_ms=10_000, delivery_timeout_ms=10_000) as producer:
        where = producer.send(GOOD_TOPIC, value, partition=0).result(timeout=10)
    with RawPeer(broker.server) as peer:
        assert [(r.offset, r.value) for r in peer.read_all(GOOD_TOPIC, 0, where.offset)] == [(where.offset, value)]
    taken = time.monotonic() - started
    assert taken < SERVED_WITHIN_S, f"a good client waited {taken:.1f} s"
    assert_log_has_no_fault(broker)


def assert_log_has_no_fault(broker: BrokerProcess) -> None:
    log = broker.log_path.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace")
    for sign in ("Traceback", "Exception", "Assertion failed"):
        assert sign not in log, log[-5_000:]


def resident_bytes(pid: int) -> int:
    """Memory a process occupies now (proc(5), VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(pid)
