"""For tests, yours too: a real broker inside the process or in one of its own, and pytest fixtures.

    from logsvc.testing import embedded_broker

    with embedded_broker() as broker:
        ... Producer(broker.server) ...

With pytest nothing needs importing: ask for the fixture `logsvc_broker`. The names below are loaded when first used, so
that the pytest plugin, which every test run of its users imports, costs nothing to those who do not use it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logsvc.testing.embedded import EmbeddedBroker, embedded_broker
    from logsvc.testing.process import BrokerProcess, broker_process

__all__ = ["BrokerProcess", "EmbeddedBroker", "broker_process", "embedded_broker"]

_HOMES = {"BrokerProcess": "process", "EmbeddedBroker": "embedded", "broker_process": "process", "embedded_broker": "embedded"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"logsvc.testing.{_HOMES[name]}"), name)
