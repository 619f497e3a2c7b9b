"""`logsvc serve` as a process: when it is ready, what it refuses, and how it ends."""

import json
import re
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from logsvc.testing import broker_process
from logsvc_client import Admin, Producer
from logsvc_common.errors import StartError
from tests.e2e.cli_runner import Logsvc, Runner

EPHEMERAL = ("--bind", "tcp://127.0.0.1:0", "--http-port", "0")


def first_line(logsvc: Logsvc, *arguments: str) -> tuple[str, int, str]:
    """What it announces; its exit code and log after SIGTERM."""
    with logsvc.start("serve", *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    return line, process.returncode, log.decode()


def test_it_says_where_it_listens_and_ends_on_sigterm(tmp_path: Path) -> None:
    line, code, _ = first_line(Logsvc(), *EPHEMERAL, "--data-dir", str(tmp_path / "d"))
    pattern = r"logsvc is ready: tcp://127\.0\.0\.1:\d+  console http://127\.0\.0\.1:\d+/  data \S+\n"
    assert re.fullmatch(pattern, line), line
    assert code == 0
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_it_announces_as_json_for_programs(tmp_path: Path) -> None:
    line, _, _ = first_line(Logsvc(), *EPHEMERAL, "--data-dir", str(tmp_path / "d"), "--format", "json")
    announced = json.loads(line)
    assert announced["server"].startswith("tcp://127.0.0.1:")
    assert announced["data_dir"] == str(tmp_path / "d")


def test_logs_are_json_lines_when_asked_for(tmp_path: Path) -> None:
    _, _, log = first_line(Logsvc(), *EPHEMERAL, "--data-dir", str(tmp_path / "d"), "--log-json")
    entries = [json.loads(line) for line in log.splitlines()]
    assert entries
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)


def test_http_can_be_switched_off(tmp_path: Path) -> None:
    line, _, _ = first_line(Logsvc(), "--bind", "tcp://127.0.0.1:0", "--http-port", "-1", "--data-dir", str(tmp_path / "d"))
    assert "metrics" not in line


def test_settings_come_from_the_environment_and_the_command_line_wins(tmp_path: Path) -> None:
    logsvc = Logsvc()
    logsvc.environment |= {
        "LOGSVC_DATA_DIR": str(tmp_path / "env"),
        "LOGSVC_BIND": "tcp://127.0.0.1:0",
        "LOGSVC_HTTP_PORT": "-1",
    }
    line, _, _ = first_line(logsvc)
    assert line.rstrip().endswith(f"data {tmp_path / 'env'}")
    line, _, _ = first_line(logsvc, "--data-dir", str(tmp_path / "option"))
    assert line.rstrip().endswith(f"data {tmp_path / 'option'}")


@pytest.mark.parametrize(
    "where", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.0.2.1:9292", "tcp://[::]:0", "tcp://example.net:1"]
)
def test_other_machines_are_not_let_in_without_keys(alone: Runner, where: str, tmp_path: Path) -> None:
    outcome = alone("serve", "--bind", where, "--http-port", "0", "--data-dir", str(tmp_path / "d"))
    assert (outcome.code, outcome.out) == (2, b"")
    assert "keys" in outcome.err
    assert not (tmp_path / "d").exists()


def test_the_http_side_is_for_this_machine_too(alone: Runner, tmp_path: Path) -> None:
    outcome = alone("serve", "--bind", "tcp://127.0.0.1:0", "--http-host", "0.0.0.0", "--data-dir", str(tmp_path / "d"))
    assert outcome.code == 2
    assert "--http-host" in outcome.err


@pytest.mark.parametrize(
    "arguments", [("--bind", "9292"), ("--http-port", "70000"), ("--log-level", "loud"), ("--http-port", "x")]
)
def test_settings_that_cannot_be_are_usage_errors(alone: Runner, arguments: tuple[str, ...], tmp_path: Path) -> None:
    outcome = alone("serve", *EPHEMERAL, "--data-dir", str(tmp_path / "d"), *arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        client = Logsvc()("serve", "--bind", f"tcp://127.0.0.1:{port}", "--http-port", "0", "--data-dir", str(tmp_path / "a"))
        http = Logsvc()("serve", "--bind", "tcp://127.0.0.1:0", "--http-port", str(port), "--data-dir", str(tmp_path / "b"))
    for outcome in (client, http):
        assert (outcome.code, outcome.out) == (1, b"")
        assert f"{port}" in outcome.err
        assert "in use" in outcome.err
        assert "Traceback" not in outcome.err


def test_a_second_broker_on_the_same_folder_is_refused_and_the_first_goes_on() -> None:
    with broker_process() as broker:
        second = Logsvc()("serve", *EPHEMERAL, "--data-dir", str(broker.data_dir))
        assert (second.code, second.out) == (1, b"")
        assert "Traceback" not in second.err
        with Admin(broker.server) as admin:
            assert admin.ping()


@pytest.mark.parametrize("folder", ["/proc/logsvc", "/dev/null/logsvc"])
def test_a_folder_that_cannot_be_written_is_told(folder: str) -> None:
    outcome = Logsvc()("serve", *EPHEMERAL, "--data-dir", folder)
    assert (outcome.code, outcome.out) == (1, b"")
    assert folder in outcome.err
    assert "Traceback" not in outcome.err


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"")
    outcome = Logsvc()("serve", *EPHEMERAL, "--data-dir", str(tmp_path / "d"))
    assert outcome.code == 1
    assert "Traceback" not in outcome.err


def test_metrics_and_health_are_served() -> None:
    with broker_process() as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders")
        with Producer(broker.server) as producer:
            producer.send("orders", b"1").result(timeout=10)
        pages = {}
        for page in ("metrics", "healthz", "readyz"):
            with urllib.request.urlopen(f"{broker.http_url}/{page}", timeout=10) as answer:
                pages[page] = answer.read().decode()
    assert 'logsvc_appended_records_total{topic="orders"} 1' in pages["metrics"]
    assert 'logsvc_partition_end_offset{topic="orders",partition="0"} 1' in pages["metrics"]
    assert json.loads(pages["healthz"])["status"] == "ok"
    assert json.loads(pages["readyz"])["status"] == "ready"


def test_dashboards_made_for_kafka_exporter_find_their_names_when_asked_for() -> None:
    with broker_process(None, "--kafka-exporter-metrics") as broker:
        with Admin(broker.server) as admin:
            admin.create_topic("orders", partitions=2)
        with urllib.request.urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
            assert 'kafka_topic_partitions{topic="orders"} 2' in answer.read().decode()


class TestBrokerProcess:
    def test_killed_and_started_again_it_has_what_was_acknowledged_on_the_same_port(self) -> None:
        with broker_process() as broker:
            server = broker.server
            with Admin(server) as admin:
                admin.create_topic("kept")
            with Producer(server) as producer:
                producer.send("kept", b"1").result(timeout=10)
            broker.kill()
            broker.start()
            assert broker.server == server
            with Admin(server) as admin:
                [topic] = admin.describe_topics(["kept"])
        assert topic.partitions[0].end_offset == 1

    def test_one_that_cannot_start_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StartError, match="did not start"), broker_process(tmp_path / "file"):
            pass
