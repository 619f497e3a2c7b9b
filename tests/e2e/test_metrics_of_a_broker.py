"""What Prometheus sees of a broker that works: appends, fsyncs, lag in records and seconds, failures, dead letters."""

import threading
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from logsvc.testing import EmbeddedBroker, embedded_broker
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy, TopicPartition

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
AT_ONCE = RetryPolicy(max_attempts=2, initial_ms=0, max_ms=0)


def scrape(broker: EmbeddedBroker) -> Series:
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {(s.name, frozenset(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def value(found: Series, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def fill(broker: EmbeddedBroker, topic: str, values: list[bytes], *, timestamp_ms: int | None = None) -> None:
    with Producer(broker.server) as producer:
        for each in values:
            delivery = producer.send(topic, each, timestamp_ms=timestamp_ms)
        delivery.result(timeout=10)


def test_appends_fsyncs_and_partitions() -> None:
    with embedded_broker() as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders", partitions=2)
        fill(broker, "orders", [b"x"] * 10)
        found = scrape(broker)
        ends = [value(found, "logsvc_partition_end_offset", topic="orders", partition=str(number)) for number in range(2)]
        with Admin(broker.server) as admin:
            admin.delete_topic("orders")
        after = scrape(broker)
    assert sum(end or 0 for end in ends) == 10
    assert value(found, "logsvc_appended_records_total", topic="orders") == 10
    assert (value(found, "logsvc_fsync_duration_seconds_count") or 0) >= 1
    assert (value(found, "logsvc_append_duration_seconds_count") or 0) >= 1
    assert (value(found, "logsvc_request_duration_seconds_count", api="produce") or 0) >= 1
    assert value(found, "logsvc_partition_state", topic="orders", partition="0", state="online") == 1
    assert "orders" not in {text for _, labels in after for _, text in labels}


def test_lag_is_the_age_of_the_first_record_not_consumed_and_absent_before_the_first_commit() -> None:
    with embedded_broker() as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders")
        long_ago_ms = 1_700_000_000_000
        fill(broker, "orders", [b"old"] * 4, timestamp_ms=long_ago_ms)
        before = scrape(broker)
        with Consumer(group_id="billing", server=broker.server, auto_commit=False) as consumer:
            consumer.assign([TopicPartition("orders", 0)])
            assert len(consumer.poll(10_000, max_records=3)) == 3
            consumer.commit()
            behind = scrape(broker)
            assert len(consumer.poll(10_000)) == 1
            consumer.commit()
            caught_up = scrape(broker)
    where = {"group": "billing", "topic": "orders", "partition": "0"}
    assert not [name for name, labels in before if ("group", "billing") in labels]
    assert value(behind, "logsvc_consumer_group_committed_offset", **where) == 3
    assert value(behind, "logsvc_consumer_group_lag", **where) == 1
    assert (value(behind, "logsvc_consumer_group_lag_seconds", **where) or 0) > 1_000
    assert value(caught_up, "logsvc_consumer_group_lag", **where) == 0
    assert value(caught_up, "logsvc_consumer_group_lag_seconds", **where) == 0
    assert -1 not in [*before.values(), *behind.values(), *caught_up.values()]


def test_failures_retries_and_dead_letters_are_counted() -> None:
    with embedded_broker() as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders")
        fill(broker, "orders", [b"good", b"bad", b"last"])
        seen: list[bytes | None] = []
        done = threading.Event()

        def handle(record: Record) -> None:
            seen.append(record.value)
            if seen.count(b"bad") == 2 and b"last" in seen:
                done.set()
            if record.value == b"bad":
                raise ValueError("no")

        with Consumer("orders", group_id="billing", server=broker.server) as consumer:
            worker = threading.Thread(target=consumer.run, args=(handle,), kwargs={"retry": AT_ONCE})
            worker.start()
            assert done.wait(30)
            members = value(scrape(broker), "logsvc_consumer_group_members", group="billing")
            consumer.stop()
            worker.join(30)
        found = scrape(broker)
    both = {"group": "billing", "topic": "orders"}
    assert members == 1
    assert value(found, "logsvc_failures_total", **both) == 2
    assert value(found, "logsvc_retries_total", **both) == 1
    assert value(found, "logsvc_dead_letter_records_total", **both, reason="exhausted") == 1
    assert (value(found, "logsvc_consumer_group_rebalances_total", group="billing") or 0) >= 1
    assert value(found, "logsvc_consumer_group_state", group="billing", state="empty") == 1
