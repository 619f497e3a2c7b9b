"""For tests, yours too: a real broker inside the process or in one of its own, and pytest fixtures.

    from logsvc.testing import embedded_broker

    with embedded_broker() as broker:
        ... Producer(broker.server) ...

With pytest nothing needs importing: ask for the fixture `logsvc_broker`. The names below are loaded when first used, so
that the pytest plugin, which every test run of its users imports, costs nothing to those who do not use it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logsvc.testing.embedded import EmbeddedBroker, embedded_broker
    from logsvc.testing.process import BrokerProcess, broker_process

__all__ = ["BrokerProcess", "EmbeddedBroker", "broker_process", "embedded_broker"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from logsvc.testing import embedded, process

    return getattr(embedded, name, None) or getattr(process, name)
