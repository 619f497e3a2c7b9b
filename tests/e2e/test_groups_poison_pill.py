"""A record that kills the process that handles it, among ten thousand: it is a dead letter, and all others are handled."""

from collections import Counter
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin, RetryPolicy
from logsvc_common.names import dead_letter_topic
from tests.e2e.workforce import Orders, Workforce, dead_letters, is_finished, produce

RECORDS = 10_000
PARTITIONS = 4
WORKERS = 2
SESSION_MS = 2_000
MAX_ATTEMPTS = 2
SUSPECTED_AFTER = 2  # deaths that are not yet any record's fault
PILL = "record 3141"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_pill_is_a_dead_letter_and_the_other_records_are_handled(
    broker: BrokerProcess, tmp_path: Path, concurrency: int
) -> None:
    topic = f"pills.{concurrency}"
    places = produce(broker.server, topic, [b"record %d" % n for n in range(RECORDS)], keys=500, partitions=PARTITIONS)
    orders = Orders(
        server=broker.server,
        topic=topic,
        group=topic,
        journal="",
        session_timeout_ms=SESSION_MS,
        retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, initial_ms=50, max_ms=200),
        concurrency=concurrency,
        deadly_value=PILL,
    )
    with Admin(broker.server) as admin, Workforce(tmp_path / "workers", WORKERS, orders) as workers:
        workers.wait_until(lambda: is_finished(admin, topic, PARTITIONS), 120, "every record has ended")
        deaths = workers.deaths
    entries = workers.journal()
    done = Counter(places[entry.partition, entry.offset] for entry in entries if entry.what == "done")
    tries = Counter(places[entry.partition, entry.offset] for entry in entries if entry.what == "began")
    print(f"{len(deaths)} deaths, the pill was begun {tries[PILL.encode()]} times, {done.total() - len(done)} handled again")

    assert done.keys() == set(places.values()) - {PILL.encode()}
    assert set(deaths) == {1}
    assert len(deaths) == tries[PILL.encode()] <= SUSPECTED_AFTER + MAX_ATTEMPTS
    (letter,) = dead_letters(broker.server, dead_letter_topic(topic, topic), PARTITIONS)
    assert letter.value == PILL.encode()
    assert places[letter.origin] == PILL.encode()
    assert letter.headers["__dlq.errors.delivery.count"] == str(MAX_ATTEMPTS)
    assert letter.headers["logsvc.dlq.exception.class"] == "logsvc.ConsumerDied"
