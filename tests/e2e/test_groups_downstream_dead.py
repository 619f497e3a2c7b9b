"""What every handler calls is dead for a while: the group pauses instead of giving its records up, and goes on by itself."""

import time
from collections import Counter
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin, RetryPolicy
from logsvc_common.messages import ConfigureGroup
from logsvc_common.names import dead_letter_topic
from tests.e2e.workforce import Orders, Workforce, dead_letters, described, is_finished, produce

RECORDS = 8_000
PARTITIONS = 4
WORKERS = 2
HANDLER_S = 0.001
LETTERS_SHARE = 0.01


def judge(
    broker: BrokerProcess, folder: Path, *, dead_s: float, max_attempts: int, concurrency: int, breaker_open_ms: int
) -> None:
    """Downstream is dead for `dead_s` once the breaker has opened, and at least until a probe has failed."""
    topic = f"downstream.{max_attempts}.{concurrency}"
    places = produce(broker.server, topic, [b"record %d" % n for n in range(RECORDS)], keys=800, partitions=PARTITIONS)
    is_dead = folder / "downstream-is-dead"
    orders = Orders(
        server=broker.server,
        topic=topic,
        group=topic,
        journal="",
        session_timeout_ms=10_000,
        retry=RetryPolicy(max_attempts=max_attempts, initial_ms=20, max_ms=100),
        concurrency=concurrency,
        handler_s=HANDLER_S,
        dead_while=str(is_dead),
    )
    with Admin(broker.server) as admin:
        admin.configure_group(ConfigureGroup(topic, open_ms=breaker_open_ms))
        with Workforce(folder / "workers", WORKERS, orders) as workers:

            def passed() -> int:
                found = described(admin, topic)
                return 0 if found is None else sum(part.committed for part in found.partitions if part.committed > 0)

            def breaker() -> str:
                return admin.describe_group(topic).breaker.state

            workers.wait_until(lambda: passed() > RECORDS // 8, 60, "an eighth of the topic is handled")
            is_dead.touch()
            workers.wait_until(lambda: breaker() == "open", 30, "the breaker is open")
            time.sleep(dead_s)
            workers.wait_until(lambda: admin.describe_group(topic).breaker.opened > 1, 60, "a probe has failed")
            back_at = time.monotonic()
            while_dead = admin.describe_group(topic)
            is_dead.unlink()
            workers.wait_until(lambda: is_finished(admin, topic, PARTITIONS), 180, "every record has ended")
            assert breaker() == "closed"
            assert workers.deaths == []
    entries = workers.journal()
    done = Counter((entry.partition, entry.offset) for entry in entries if entry.what == "done")
    failed = Counter((entry.partition, entry.offset) for entry in entries if entry.what == "failed")
    letters = dead_letters(broker.server, dead_letter_topic(topic, topic), PARTITIONS)
    resumed_s = max(entry.at for entry in entries) - back_at
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


@pytest.mark.timeout(300)
def test_a_dead_downstream_pauses_the_group_and_costs_next_to_no_dead_letters(broker: BrokerProcess, tmp_path: Path) -> None:
    judge(broker, tmp_path, dead_s=0, max_attempts=3, concurrency=1, breaker_open_ms=1_000)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("max_attempts", [1, 5])
def test_a_downstream_that_is_dead_for_half_a_minute(
    broker: BrokerProcess, tmp_path: Path, max_attempts: int, concurrency: int
) -> None:
    judge(broker, tmp_path, dead_s=30.0, max_attempts=max_attempts, concurrency=concurrency, breaker_open_ms=5_000)
