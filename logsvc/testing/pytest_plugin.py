"""The pytest fixtures, found by entry point wherever logsvc is installed.

    def test_orders(logsvc_broker):
        with Producer(logsvc_broker.server) as producer:
            producer.send("orders", b"1").result(timeout=5)

Nothing of logsvc is imported before a test asks for a fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from logsvc.testing.embedded import EmbeddedBroker
    from logsvc_client import Admin, Producer


@pytest.fixture
def logsvc_broker() -> "Iterator[EmbeddedBroker]":
    """A broker of its own for this test: empty, on random ports, gone afterwards."""
    from logsvc.testing.embedded import embedded_broker

    with embedded_broker() as broker:
        yield broker


@pytest.fixture
def logsvc_producer(logsvc_broker: "EmbeddedBroker") -> "Iterator[Producer]":
    """A producer connected to this test's broker; it does not linger."""
    from logsvc_client import Producer

    with Producer(logsvc_broker.server, linger_ms=0) as producer:
        yield producer


@pytest.fixture
def logsvc_admin(logsvc_broker: "EmbeddedBroker") -> "Iterator[Admin]":
    """An admin client connected to this test's broker."""
    from logsvc_client import Admin

    with Admin(logsvc_broker.server) as admin:
        yield admin
