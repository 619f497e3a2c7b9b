"""What every handler calls is dead for a while: the group pauses instead of giving its records up, and goes on by itself."""

import time
from collections import Counter
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin, RetryPolicy
from logsvc_common.names import dead_letter_topic
from tests.e2e.workforce import Orders, Workforce, dead_letters, described, is_finished, produce

TOPIC = "downstream"
RECORDS = 8_000
PARTITIONS = 4
WORKERS = 2
MAX_ATTEMPTS = 3
HANDLER_S = 0.001
DEAD_S = 6.0  # longer than the breaker's first pause, so at least one probe fails
LETTERS_SHARE = 0.01


@pytest.mark.timeout(180)
def test_a_dead_downstream_pauses_the_group_and_costs_next_to_no_dead_letters(broker: BrokerProcess, tmp_path: Path) -> None:
    places = produce(broker.server, TOPIC, [b"record %d" % n for n in range(RECORDS)], keys=800, partitions=PARTITIONS)
    is_dead = tmp_path / "downstream-is-dead"
    orders = Orders(
        server=broker.server,
        topic=TOPIC,
        group=TOPIC,
        journal="",
        session_timeout_ms=10_000,
        retry=RetryPolicy(max_attempts=MAX_ATTEMPTS, initial_ms=20, max_ms=100),
        handler_s=HANDLER_S,
        dead_while=str(is_dead),
    )
    with Admin(broker.server) as admin, Workforce(tmp_path / "workers", WORKERS, orders) as workers:

        def passed() -> int:
            found = described(admin, TOPIC)
            return 0 if found is None else sum(part.committed for part in found.partitions if part.committed > 0)

        def breaker() -> str:
            return admin.describe_group(TOPIC).breaker.state

        workers.wait_until(lambda: passed() > RECORDS // 8, 60, "an eighth of the topic is handled")
        is_dead.touch()
        workers.wait_until(lambda: breaker() == "open", 30, "the breaker is open")
        time.sleep(DEAD_S)
        died_at = time.monotonic()
        while_dead = admin.describe_group(TOPIC)
        is_dead.unlink()
        workers.wait_until(lambda: is_finished(admin, TOPIC, PARTITIONS), 120, "every record has ended")
        assert breaker() == "closed"
        assert workers.deaths == []
    entries = workers.journal()
    done = Counter((entry.partition, entry.offset) for entry in entries if entry.what == "done")
    failed = Counter((entry.partition, entry.offset) for entry in entries if entry.what == "failed")
    letters = dead_letters(broker.server, dead_letter_topic(TOPIC, TOPIC), PARTITIONS)
    resumed_s = max(entry.at for entry in entries) - died_at
    print(
        f"{failed.total()} handler calls failed, of {len(failed)} records; {len(letters)} dead letters; breaker opened "
        f"{while_dead.breaker.opened} times while dead; all ended {resumed_s:.1f} s after downstream came back"
    )

    assert sum(part.lag for part in while_dead.partitions) > RECORDS // 4, "the group drained its topic while it failed"
    assert len(letters) < LETTERS_SHARE * RECORDS
    assert len({letter.origin for letter in letters}) == len(letters)
    assert done.keys() | {letter.origin for letter in letters} == places.keys()
    assert not done.keys() & {letter.origin for letter in letters}
    assert max(done.values()) == 1
