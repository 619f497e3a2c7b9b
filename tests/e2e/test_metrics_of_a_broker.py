"""What Prometheus sees of a broker that works: appends, fsyncs, lag in records and seconds, failures, dead letters."""

import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from logsvc.testing import EmbeddedBroker, embedded_broker
from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy, TopicPartition
from logsvc_common.batch import RecordData, encode
from logsvc_common.errors import UnknownGroup, UnknownTopic
from logsvc_common.messages import NO_MEMBER_EPOCH, Commit, CommitPartition, Produce, ProducePartition
from tests.e2e.raw_peer import RawPeer

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
LETTERS = "logsvc_dead_letter_records_total"
ERRORS = "logsvc_request_errors_total"
AT_ONCE = RetryPolicy(max_attempts=2, initial_ms=0, max_ms=0)


def page(broker: EmbeddedBroker) -> str:
    with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def scrape(broker: EmbeddedBroker) -> Series:
    text = page(broker)
    return {(s.name, frozenset(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples}


def value(found: Series, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def fill(broker: EmbeddedBroker, topic: str, values: list[bytes], *, timestamp_ms: int | None = None) -> None:
    with Producer(broker.server) as producer:
        for each in values:
            delivery = producer.send(topic, each, timestamp_ms=timestamp_ms)
        delivery.result(timeout=10)


def until(what: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)


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


def work(broker: EmbeddedBroker, *, fail: bool, until_letters: int = 0, until_redriven: int = 0) -> None:
    redriven: list[bytes | None] = []

    def handle(record: Record) -> None:
        if fail and record.value == b"bad":
            raise ValueError("no")
        redriven.append(record.value)

    both = {"group": "billing", "topic": "orders"}
    with Consumer("orders", group_id="billing", server=broker.server) as consumer:
        worker = threading.Thread(target=consumer.run, args=(handle,), kwargs={"retry": AT_ONCE})
        worker.start()
        if until_letters:
            until(lambda: value(scrape(broker), LETTERS, **both, reason="exhausted") == until_letters)
        else:
            until(lambda: len(redriven) >= until_redriven)
        consumer.stop()
        worker.join(30)


@pytest.fixture(scope="module")
def eventful() -> Iterator[EmbeddedBroker]:
    """A broker on which everything has happened: failures, retries, dead letters, a redrive, refusals."""
    with embedded_broker(kafka_exporter_metrics=True) as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders", partitions=2)
            fill(broker, "orders", [b"bad", b"good", b"bad", b"good"])
            work(broker, fail=True, until_letters=2)
            admin.redrive("billing", topic="orders", limit=1)
            work(broker, fail=False, until_redriven=1)
            with Producer(broker.server) as producer, pytest.raises(UnknownTopic):
                producer.send("nowhere", b"x").result(timeout=10)
            with pytest.raises(UnknownGroup):
                admin.describe_group("nobody")
        with RawPeer(broker.server) as peer:
            peer.send_frames([b"no request at all"])
            until(lambda: value(scrape(broker), ERRORS, api="unknown", code="InvalidRequest") == 1)
            refused = peer.refusal(Produce([ProducePartition("nowhere", 0)]), [encode([RecordData(b"x")])])
            assert isinstance(refused, UnknownTopic)
        yield broker


class TestAfterFailures:
    def test_every_counter_has_moved_by_what_happened(self, eventful: EmbeddedBroker) -> None:
        found = scrape(eventful)
        both = {"group": "billing", "topic": "orders"}
        assert value(found, "logsvc_failures_total", **both) == 4
        assert value(found, "logsvc_retries_total", **both) == 2
        assert value(found, LETTERS, **both, reason="exhausted") == 2
        assert value(found, "logsvc_redriven_records_total", **both) == 1
        assert (value(found, "logsvc_consumer_group_rebalances_total", group="billing") or 0) >= 4  # came and left, twice
        assert value(found, "logsvc_appended_records_total", topic="orders") == 4
        assert value(found, "logsvc_appended_records_total", topic="dlq.orders.billing") == 2
        assert (value(found, "logsvc_fetched_bytes_total", topic="orders") or 0) > 0
        assert value(found, "logsvc_breaker_open", group="billing") == 0

    def test_refusals_are_counted_whole_for_a_partition_and_of_what_is_no_request(self, eventful: EmbeddedBroker) -> None:
        found = scrape(eventful)
        assert value(found, ERRORS, api="describe_group", code="UnknownGroup") == 1
        assert (value(found, ERRORS, api="metadata", code="UnknownTopic") or 0) >= 1
        assert value(found, ERRORS, api="produce", code="UnknownTopic") == 1
        assert value(found, ERRORS, api="unknown", code="InvalidRequest") == 1
        text = {text for _, labels in found for _, text in labels}
        assert not text & {"nowhere", "nobody"}  # what a client makes up is no label

    def test_dead_letters_lie_there_with_their_age_until_they_are_purged(self, eventful: EmbeddedBroker) -> None:
        both = {"group": "billing", "topic": "orders"}
        found = scrape(eventful)
        assert value(found, "logsvc_dead_letters", **both) == 2
        assert 0 <= (value(found, "logsvc_dead_letter_oldest_age_seconds", **both) or 0) < 120

    def test_the_disk_is_told(self, eventful: EmbeddedBroker) -> None:
        found = scrape(eventful)
        free, size, reserve = (value(found, f"logsvc_disk_{what}_bytes") or 0 for what in ("free", "size", "reserve"))
        assert 0 < reserve < size
        assert 0 < free <= size

    def test_kafka_exporters_names_agree_with_ours(self, eventful: EmbeddedBroker) -> None:
        found = scrape(eventful)
        ours = {"logsvc_consumer_group_lag": "kafka_consumergroup_lag"}
        ours["logsvc_consumer_group_committed_offset"] = "kafka_consumergroup_current_offset"
        for name, theirs in ours.items():
            mine = {labels: number for (found_name, labels), number in found.items() if found_name == name}
            assert mine
            for labels, number in mine.items():
                renamed = {"consumergroup" if label == "group" else label: text for label, text in labels}
                assert value(found, theirs, **renamed) == number

    def test_promtool_finds_nothing_to_say(self, eventful: EmbeddedBroker) -> None:
        promtool = shutil.which("promtool")
        if promtool is None:
            pytest.skip("promtool is not here: apt-get install prometheus (.ci/run does)")
        ours = "".join(line for line in page(eventful).splitlines(keepends=True) if "kafka_" not in line)
        done = subprocess.run(
            [promtool, "check", "metrics"], input=ours, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_lag_in_seconds_is_the_truth_for_an_idle_a_bursty_and_a_stopped_consumer(codec: str) -> None:
    def seconds(topic: str) -> float | None:
        return value(scrape(broker), "logsvc_consumer_group_lag_seconds", group="g", topic=topic, partition="0")

    with embedded_broker() as broker:
        now_ms = time.time_ns() // 1_000_000
        ages_s = {"idle": 500, "bursty": 40, "stopped": 900}
        with Admin(broker.server) as admin, Producer(broker.server, compression=codec, linger_ms=50) as producer:
            for topic, age_s in ages_s.items():
                admin.create_topic(topic)
                for step in range(20):  # one batch, a second between its records
                    producer.send(topic, b"x" * 50, timestamp_ms=now_ms - (age_s + 100 - step) * 1_000)
            producer.flush(10)
        with RawPeer(broker.server) as peer:
            at = {"idle": 20, "bursty": 20, "stopped": 7}
            peer.call(Commit("g", "", NO_MEMBER_EPOCH, [CommitPartition(topic, 0, offset) for topic, offset in at.items()]))
        with Producer(broker.server, compression=codec) as producer:
            for _ in range(100):
                producer.send("bursty", b"y", timestamp_ms=now_ms - ages_s["bursty"] * 1_000)
            producer.flush(10)
        assert seconds("idle") == 0
        for topic, expected_s in (("bursty", 40.0), ("stopped", 900.0 + 100 - 7)):
            found = seconds(topic)
            passed_s = (time.time_ns() // 1_000_000 - now_ms) / 1_000
            assert found is not None
            assert expected_s <= found <= expected_s + passed_s + 0.2
