"""One browser and one filled broker for a module's tests; each test has a page of its own.

The browser is a module's and not a session's: while Playwright runs, its event loop counts as running in this thread, and other
modules' tests want to start one.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from logsvc.cli.demo import Report
from logsvc.testing import BrokerProcess
from tests.browser.driver import Visit, chromium, visit
from tests.browser.scenes import demo_broker, make_hostile


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def filled(browser: Any) -> Iterator[tuple[BrokerProcess, Report]]:
    """A broker that only shows; nothing in it changes. After `browser`, so that nothing is started where that skips."""
    with demo_broker() as (broker, report):
        make_hostile(broker.server)
        yield broker, report


@pytest.fixture
def report(filled: tuple[BrokerProcess, Report]) -> Report:
    return filled[1]


@pytest.fixture
def console(browser: Any, filled: tuple[BrokerProcess, Report]) -> Iterator[Visit]:
    broker, _ = filled
    assert broker.http_url is not None
    with visit(browser, broker.http_url) as found:
        yield found
