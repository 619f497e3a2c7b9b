"""Brokers that cannot start say why and end, with exit code 1; clients without a broker give up at their deadline."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logsvc.testing import BrokerProcess, broker_process
from logsvc_client import Admin, Consumer, Producer, RequestTimeout
from logsvc_common.errors import DeliveryTimeout
from tests.e2e.unharmed import assert_unharmed, ensure_good_topic

START_TIMEOUT_S = 30
PROMPTLY_S = 10  # deadlines of the tests are well below a second: later than this is hanging


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with broker_process(tmp_path_factory.mktemp("first") / "data", "--log-level", "warning") as running:
        ensure_good_topic(running)
        yield running


@pytest.fixture(autouse=True)
def _unharmed_afterwards(broker: BrokerProcess) -> Iterator[None]:
    yield
    assert_unharmed(broker)


def refused_start(data_dir: Path, bind: str = "tcp://127.0.0.1:0", http_port: int = 0) -> str:
    """Start a broker that must not come up; what it says on stderr."""
    command = [sys.executable, "-m", "logsvc.cli.main", "serve", "--data-dir", str(data_dir), "--bind", bind]
    done = subprocess.run(
        [*command, "--http-port", str(http_port)],
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("logsvc: ") or "\nlogsvc: " in done.stderr
    return done.stderr


def test_a_second_broker_on_the_same_folder(broker: BrokerProcess) -> None:
    said = refused_start(broker.data_dir)
    assert str(broker.data_dir) in said


def test_a_second_broker_on_the_same_folder_by_another_name(broker: BrokerProcess, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(broker.data_dir)
    assert "link" in refused_start(tmp_path / "link")


def test_a_folder_is_free_again_after_its_broker_was_killed(tmp_path: Path) -> None:
    with broker_process(tmp_path / "data") as other:
        other.kill()
        other.start()


def test_a_port_in_use(broker: BrokerProcess, tmp_path: Path) -> None:
    said = refused_start(tmp_path / "other", bind=broker.server)
    assert broker.server.rpartition(":")[2] in said
    assert broker.http_url is not None
    http_port = broker.http_url.rpartition(":")[2]
    assert http_port in refused_start(tmp_path / "third", http_port=int(http_port))


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("not a folder")
    return folder / "file" / "data"


def a_file_itself(folder: Path) -> Path:
    (folder / "data").write_text("not a folder")
    return folder / "data"


def a_dangling_link(folder: Path) -> Path:
    (folder / "data").symlink_to(folder / "nowhere" / "else")
    return folder / "data"


def a_folder_where_the_lock_belongs(folder: Path) -> Path:
    (folder / "data" / ".lock").mkdir(parents=True)
    return folder / "data"


def a_file_where_topics_belong(folder: Path) -> Path:
    (folder / "data").mkdir()
    (folder / "data" / "topics").write_text("not a folder")
    return folder / "data"


# Tests may run as root, whom no mode keeps from writing: these cannot be written by anyone.
@pytest.mark.parametrize(
    "unusable", [below_a_file, a_file_itself, a_dangling_link, a_folder_where_the_lock_belongs, a_file_where_topics_belong]
)
def test_a_data_folder_that_cannot_be_written(unusable: Callable[[Path], Path], tmp_path: Path) -> None:
    data_dir = unusable(tmp_path)
    assert "data" in refused_start(data_dir)


def test_a_data_folder_on_a_read_only_file_system() -> None:
    read_only = Path("/proc")  # a file system nobody can make a folder in
    if not read_only.is_dir():
        pytest.skip("there is no /proc here")
    said = refused_start(read_only / "logsvc-data")
    assert str(read_only / "logsvc-data") in said
    assert shutil.which("logsvc-data") is None


# Clients without a broker


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port where nothing listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"


def took(call: Callable[[], object], expected: type[Exception]) -> float:
    started = time.monotonic()
    with pytest.raises(expected):
        call()
    return time.monotonic() - started


@pytest.mark.parametrize("where", ["nobody", "mute"])
def test_an_admin_client_without_a_broker_gives_up_at_its_deadline(where: str, request: pytest.FixtureRequest) -> None:
    with Admin(request.getfixturevalue(where), timeout_ms=400) as admin:
        assert 0.3 < took(admin.list_topics, RequestTimeout) < PROMPTLY_S


@pytest.mark.parametrize("where", ["nobody", "mute"])
def test_a_producer_without_a_broker_gives_up_at_its_deadline(where: str, request: pytest.FixtureRequest) -> None:
    with Producer(request.getfixturevalue(where), max_block_ms=400) as producer:
        assert 0.3 < took(lambda: producer.send("orders", b"v"), RequestTimeout) < PROMPTLY_S


def test_a_producer_whose_broker_goes_away_gives_up_at_its_delivery_timeout(tmp_path: Path) -> None:
    with broker_process(tmp_path / "data") as other:
        ensure_good_topic(other)
        with Producer(other.server, delivery_timeout_ms=600, linger_ms=0) as producer:
            producer.send("good", b"first").result(timeout=5)
            other.kill()
            delivery = producer.send("good", b"second")
            assert 0.3 < took(lambda: delivery.result(timeout=10), DeliveryTimeout) < PROMPTLY_S


@pytest.mark.parametrize("where", ["nobody", "mute"])
@pytest.mark.parametrize("group", [None, "billing"])
def test_a_consumer_without_a_broker_gives_up_at_its_deadline(
    where: str, group: str | None, request: pytest.FixtureRequest
) -> None:
    with Consumer("orders", group_id=group, server=request.getfixturevalue(where), connect_timeout_ms=400) as consumer:
        assert 0.3 < took(lambda: consumer.poll(5_000), RequestTimeout) < PROMPTLY_S


def test_closing_a_client_without_a_broker_does_not_hang(nobody: str) -> None:
    started = time.monotonic()
    Admin(nobody).close()
    Producer(nobody).close(timeout=1)
    Consumer("orders", server=nobody).close(timeout=1)
    Consumer("orders", group_id="billing", server=nobody).close(timeout=1)
    assert time.monotonic() - started < PROMPTLY_S
