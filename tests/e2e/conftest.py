"""One broker in a process of its own for a module's tests of the command line; each test uses topics of its own."""

from collections.abc import Iterator

import pytest

from logsvc.testing import BrokerProcess, broker_process
from tests.e2e.cli_runner import Logsvc


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    with broker_process() as running:
        yield running


@pytest.fixture(scope="module")
def logsvc(broker: BrokerProcess) -> Logsvc:
    return Logsvc(broker.server)
