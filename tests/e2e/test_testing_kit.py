"""The kit users test with: the embedded broker, and the pytest fixtures found by entry point."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from logsvc.testing import EmbeddedBroker, embedded_broker
from logsvc_client import Admin, Producer
from logsvc_common.errors import LogsvcError


def end_offset(server: str, topic: str) -> int:
    with Admin(server) as admin:
        [described] = admin.describe_topics([topic])
    return sum(partition.end_offset for partition in described.partitions)


def fill(server: str, topic: str, records: int) -> None:
    with Admin(server) as admin:
        if topic not in [known.topic for known in admin.list_topics()]:
            admin.create_topic(topic)
    with Producer(server) as producer:
        for number in range(records):
            delivery = producer.send(topic, b"%d" % number)
        delivery.result(timeout=10)


class TestEmbeddedBroker:
    def test_it_serves_on_ports_of_its_own_and_leaves_nothing_behind(self) -> None:
        with embedded_broker() as one, embedded_broker() as other:
            assert one.server != other.server
            fill(one.server, "orders", 3)
            assert end_offset(one.server, "orders") == 3
            with Admin(other.server) as admin:
                assert admin.list_topics() == []
            folder = one.data_dir
            assert folder.is_dir()
        assert not folder.exists()
        assert "logsvc broker" not in {thread.name for thread in threading.enumerate()}

    def test_a_folder_of_yours_stays_and_is_found_again(self, tmp_path: Path) -> None:
        with embedded_broker(tmp_path / "data") as broker:
            fill(broker.server, "orders", 3)
        with embedded_broker(tmp_path / "data") as broker:
            assert end_offset(broker.server, "orders") == 3

    def test_restarted_it_is_at_the_same_address_with_the_same_records(self) -> None:
        with embedded_broker() as broker:
            server, http_url = broker.server, broker.http_url
            fill(server, "orders", 3)
            broker.restart()
            assert (broker.server, broker.http_url) == (server, http_url)
            fill(server, "orders", 2)
            assert end_offset(server, "orders") == 5

    def test_stopping_twice_does_no_harm(self) -> None:
        with embedded_broker() as broker:
            broker.stop()
            broker.stop()

    def test_settings_are_those_of_the_server(self) -> None:
        with embedded_broker(http_port=-1) as broker:
            assert broker.http_url is None

    def test_what_keeps_it_from_starting_is_raised_where_it_is_started(self, tmp_path: Path) -> None:
        with (
            embedded_broker(tmp_path / "data"),
            pytest.raises(LogsvcError, match="another broker"),
            embedded_broker(tmp_path / "data"),
        ):
            pass
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(LogsvcError, match="file"), embedded_broker(tmp_path / "file"):
            pass

    def test_an_error_in_the_block_is_not_swallowed_and_the_broker_stops(self) -> None:
        seen: list[EmbeddedBroker] = []

        def fails() -> None:
            with embedded_broker() as broker:
                seen.append(broker)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            fails()
        assert not seen[0].data_dir.exists()


TEST_OF_A_USER = """
from logsvc_client import Admin, Producer

def test_one(logsvc_broker, logsvc_admin, logsvc_producer):
    logsvc_admin.create_topic("orders")
    assert logsvc_producer.send("orders", b"1").result(timeout=10).offset == 0

def test_two_has_a_broker_of_its_own(logsvc_admin):
    assert logsvc_admin.list_topics() == []
"""


def test_the_fixtures_are_there_without_importing_anything(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(TEST_OF_A_USER)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_plugin_costs_those_who_do_not_use_it_nothing() -> None:
    heavy = {"zmq", "aiokafka", "pydantic", "uvicorn", "msgspec", "logsvc.app", "logsvc_client"}
    program = f"import sys, logsvc.testing.pytest_plugin; print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
