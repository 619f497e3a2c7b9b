"""A handler that takes ten sessions: heartbeats do not wait for it, so nobody is taken for dead and nothing is done twice."""

from collections import Counter
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Admin
from tests.e2e.workforce import Orders, Workforce, described, is_finished, produce, two_owners

PARTITIONS = 2
WORKERS = 2


def judge(broker: BrokerProcess, folder: Path, *, handler_s: float, session_ms: int, records: int, busy: bool) -> None:
    topic = f"slow.{session_ms}.{'busy' if busy else 'asleep'}"
    values = [b"record %d" % n for n in range(records)]
    orders = Orders(
        server=broker.server,
        topic=topic,
        group=topic,
        journal="",
        session_timeout_ms=session_ms,
        handler_s=handler_s,
        busy=busy,
    )
    with Admin(broker.server) as admin:
        admin.create_topic(topic, partitions=PARTITIONS)
        with Workforce(folder, WORKERS, orders) as workers:

            def is_shared() -> bool:
                found = described(admin, topic)
                owned = [] if found is None else [member.owned for member in found.members]
                return len(owned) == WORKERS and all(owned)

            workers.wait_until(is_shared, 60, "each worker has a partition")
            epoch = admin.describe_group(topic).epoch
            members = {member.member_id for member in admin.describe_group(topic).members}
            places = produce(broker.server, topic, values, keys=records, partitions=None)
            timeout_s = 60 + 2 * handler_s * records
            workers.wait_until(lambda: is_finished(admin, topic, PARTITIONS), timeout_s, "every record has ended")
            found = admin.describe_group(topic)
            assert found.epoch == epoch, "the group has rebalanced"
            assert {member.member_id for member in found.members} == members
            assert workers.deaths == []
    entries = workers.journal()
    print(f"{records} records of {handler_s:.0f} s under a session of {session_ms} ms: group epoch {epoch} throughout")
    assert Counter((entry.partition, entry.offset) for entry in entries if entry.what == "began") == Counter(places.keys())
    assert Counter((entry.partition, entry.offset) for entry in entries if entry.what == "done") == Counter(places.keys())
    assert two_owners(entries) == []
    assert max(entry.attempt for entry in entries) == 1


@pytest.mark.timeout(180)
def test_six_seconds_under_a_session_of_six_tenths(broker: BrokerProcess, tmp_path: Path) -> None:
    judge(broker, tmp_path, handler_s=6.0, session_ms=600, records=4, busy=False)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("busy", [False, True])
def test_a_minute_under_a_session_of_six_seconds(broker: BrokerProcess, tmp_path: Path, busy: bool) -> None:
    judge(broker, tmp_path, handler_s=60.0, session_ms=6_000, records=4, busy=busy)
