"""One broker in a process of its own for a module's tests of the command line; each test uses topics of its own."""

from collections.abc import Iterator

import pytest

from logsvc.testing import BrokerProcess, broker_process
from tests.e2e.cli_runner import NOBODY, InProcess, Logsvc


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process() as running:
        yield running


@pytest.fixture
def command(broker: BrokerProcess) -> Logsvc:
    """`logsvc` as a process."""
    return Logsvc(broker.server)


@pytest.fixture
def logsvc(broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> InProcess:
    """`logsvc` inside this process: quicker, for the many cases."""
    return InProcess(broker.server, monkeypatch, capfdbinary)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> InProcess:
    """`logsvc` inside this process, for commands that need no broker that runs."""
    return InProcess(NOBODY, monkeypatch, capfdbinary)
