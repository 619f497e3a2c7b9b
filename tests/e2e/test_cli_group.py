"""`logsvc group configure|reset|resume|delete` against a real broker: what they change, print and refuse."""

import time

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import Consumer, RetryPolicy
from tests.e2e.cli_runner import Logsvc, Runner

RECORDS = 60


def with_records(logsvc: Runner, topic: str, partitions: int = 1) -> None:
    assert logsvc("topic", "create", topic, "--partitions", str(partitions)).code == 0
    lines = b"".join(b"%d\n" % number for number in range(RECORDS))
    assert logsvc("produce", topic, input=lines).code == 0


def committed(logsvc: Runner, group: str) -> dict[int, int | None]:
    return {p["partition"]: p["committed"] for p in logsvc.json("group", "describe", group)["partitions"]}


def consume(broker: BrokerProcess, topic: str, group: str, records: int = RECORDS) -> Consumer:
    """A consumer that has committed so many records, and is still there."""
    consumer = Consumer(topic, group_id=group, server=broker.server, auto_offset_reset="earliest")
    seen = 0
    while seen < records:
        seen += len(consumer.poll(5_000, max_records=records - seen))
    consumer.commit()
    return consumer


class TestReset:
    def test_it_goes_where_it_is_told_after_a_dry_run_that_changes_nothing(self, broker: BrokerProcess, logsvc: Runner) -> None:
        with_records(logsvc, "reset-all")
        consume(broker, "reset-all", "reset-all-g").close()
        assert committed(logsvc, "reset-all-g") == {0: RECORDS}

        tried = logsvc.json("group", "reset", "reset-all-g", "--to-earliest", "--dry-run")
        assert tried == [{"topic": "reset-all", "partition": 0, "from": RECORDS, "to": 0, "dropped": 0, "kept": 0}]
        assert committed(logsvc, "reset-all-g") == {0: RECORDS}

        assert logsvc("group", "reset", "reset-all-g", "--to-earliest").code == 0
        assert committed(logsvc, "reset-all-g") == {0: 0}
        again = consume(broker, "reset-all", "reset-all-g")
        again.close()

    @pytest.mark.parametrize(
        ("arguments", "offset"),
        [
            (("--to-offset", "17"), 17),
            (("--to-offset", "1000"), RECORDS),
            (("--shift-by", "-15"), RECORDS - 15),
            (("--shift-by", "15"), RECORDS),
            (("--to-latest",), RECORDS),
            (("--to-time", "2000-01-01"), 0),
            (("--to-time", "2100-01-01"), RECORDS),
            (("--by-duration", "1d"), 0),
            (("--by-duration", "0s"), RECORDS),
        ],
    )
    def test_every_way_to_say_where(
        self, broker: BrokerProcess, logsvc: Runner, arguments: tuple[str, ...], offset: int
    ) -> None:
        if logsvc("topic", "describe", "ways").code:
            with_records(logsvc, "ways")
            consume(broker, "ways", "ways-g").close()
            time.sleep(0.01)  # so that "now" lies behind the last record
        assert logsvc("group", "reset", "ways-g", "--to-latest").code == 0
        [result] = logsvc.json("group", "reset", "ways-g", *arguments)
        assert (result["from"], result["to"]) == (RECORDS, offset)
        assert committed(logsvc, "ways-g") == {0: offset}

    def test_a_group_that_does_not_exist_gets_offsets_in_a_topic_that_is_named(self, logsvc: Runner) -> None:
        with_records(logsvc, "early", partitions=2)
        assert logsvc("group", "reset", "early-g", "--to-latest").code == 4
        results = logsvc.json("group", "reset", "early-g", "--topic", "early", "--to-latest", "--partition", "1")
        assert [(r["partition"], r["from"]) for r in results] == [(1, None)]

    def test_it_is_refused_while_somebody_reads(self, broker: BrokerProcess, logsvc: Runner) -> None:
        with_records(logsvc, "busy")
        consumer = consume(broker, "busy", "busy-g")
        try:
            for verb in (("reset", "busy-g", "--to-earliest"), ("delete", "busy-g", "--yes")):
                outcome = logsvc("group", *verb)
                assert outcome.code == 1
                assert "active members" in outcome.err
        finally:
            consumer.close()
        assert logsvc("group", "reset", "busy-g", "--to-earliest").code == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("--to-earliest", "--to-latest"),
            ("--by-duration", "yesterday"),
            ("--to-time", "noon"),
            ("--to-earliest", "--partition", "0"),
        ],
    )
    def test_a_command_that_does_not_say_where_is_a_usage_error(self, logsvc: Runner, arguments: tuple[str, ...]) -> None:
        assert logsvc("group", "reset", "any", *arguments).code == 2

    def test_failures_that_will_be_read_again_are_forgotten(self, broker: BrokerProcess, logsvc: Runner) -> None:
        with_records(logsvc, "failing")
        policy = RetryPolicy(initial_ms=60_000, max_ms=60_000)
        consumer = Consumer("failing", group_id="failing-g", server=broker.server, auto_offset_reset="earliest", retry=policy)
        seen = 0
        while seen < RECORDS:
            for record in consumer.poll(5_000):
                seen += 1
                if record.offset in (10, 50):
                    consumer.fail(record, "no")
        consumer.commit()
        consumer.close()
        [result] = logsvc.json("group", "reset", "failing-g", "--to-offset", "30")
        assert (result["dropped"], result["kept"]) == (1, 1)
        [found] = logsvc.json("group", "describe", "failing-g")["partitions"]
        assert (found["committed"], found["failed"]) == (30, {"waiting": 1})
        [result] = logsvc.json("group", "reset", "failing-g", "--to-latest", "--drop-failed")
        assert (result["dropped"], result["kept"]) == (1, 0)


class TestConfigure:
    def test_settings_are_changed_shown_and_brought_back(self, logsvc: Runner) -> None:
        assert logsvc("group", "configure", "nobody").code == 4
        made = logsvc.json("group", "configure", "setup", "--breaker-threshold", "0.25", "--breaker-window", "30s")
        assert (made["breaker"]["threshold"], made["breaker"]["window_ms"], made["breaker"]["enabled"]) == (0.25, 30_000, True)
        off = logsvc.json("group", "configure", "setup", "--breaker", "off")
        assert (off["breaker"]["threshold"], off["breaker"]["enabled"]) == (0.25, False)
        assert logsvc.json("group", "configure", "setup") == off
        assert logsvc.json("group", "describe", "setup")["breaker"]["state"] == "off"
        assert "breaker off" in logsvc("group", "describe", "setup").out.decode()
        assert {group["group"]: group["breaker"] for group in logsvc.json("group", "list")}["setup"] == "off"
        back = logsvc.json("group", "configure", "setup", "--defaults", "--breaker-probes", "5")
        assert (back["breaker"]["threshold"], back["breaker"]["enabled"], back["breaker"]["probes"]) == (0.5, True, 5)

    @pytest.mark.parametrize(
        "arguments", [("--breaker-threshold", "1.5"), ("--breaker-window", "soon"), ("--breaker-probes", "0")]
    )
    def test_a_value_that_cannot_be_is_a_usage_error(self, logsvc: Runner, arguments: tuple[str, ...]) -> None:
        assert logsvc("group", "configure", "wrong", *arguments).code == 2


class TestResume:
    def test_paused_records_are_tried_again(self, broker: BrokerProcess, logsvc: Runner) -> None:
        with_records(logsvc, "paused")
        policy = RetryPolicy(max_attempts=1, on_exhausted="pause")
        consumer = Consumer("paused", group_id="paused-g", server=broker.server, auto_offset_reset="earliest", retry=policy)
        try:
            for record in consumer.poll(5_000, max_records=1):
                consumer.fail(record, "an operator should look")
            consumer.commit()
            [found] = logsvc.json("group", "describe", "paused-g")["partitions"]
            assert found["failed"] == {"paused": 1}
            assert logsvc.json("group", "resume", "paused-g", "--topic", "paused", "--partition", "0")["resumed"] == 1
            again = []
            deadline = time.monotonic() + 10
            while not again and time.monotonic() < deadline:
                again = [record for record in consumer.poll(1_000) if record.offset == 0]
            assert [record.attempt for record in again] == [1]
        finally:
            consumer.close()

    def test_nothing_to_resume_is_fine_and_an_unknown_group_is_not(self, logsvc: Runner) -> None:
        logsvc("group", "configure", "calm", "--breaker", "on")
        assert logsvc.json("group", "resume", "calm") == {"group": "calm", "breaker_closed": False, "resumed": 0}
        assert logsvc("group", "resume", "nobody-at-all").code == 4
        assert logsvc("group", "resume", "calm", "--partition", "0").code == 2


class TestDelete:
    def test_a_deleted_group_starts_afresh(self, broker: BrokerProcess, command: Logsvc) -> None:
        logsvc = command
        with_records(logsvc, "gone")
        consume(broker, "gone", "gone-g").close()
        gone = logsvc.json("group", "delete", "gone-g", "--yes")
        assert gone == {"group": "gone-g", "partitions": 1, "failed": 0}
        assert logsvc("group", "describe", "gone-g").code == 4
        assert logsvc("group", "delete", "gone-g", "--yes").code == 4
        consume(broker, "gone", "gone-g").close()
