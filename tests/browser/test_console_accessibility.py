"""Everybody can use the console: axe-core on every view in light and dark, the keyboard alone, 320 pixels, less motion."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from logsvc.cli.demo import DEAD_LETTERS, GROUP, TOPIC, Report
from logsvc.testing import BrokerProcess
from tests.browser.driver import Visit, visit
from tests.browser.scenes import HOSTILE_TOPIC

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright").expect

VIEWS = {
    "overview": "#/",
    "topics": "#/topics",
    "topic": f"#/topics/{TOPIC}",
    "records": f"#/topics/{HOSTILE_TOPIC}/records?open=2",
    "groups": "#/groups",
    "group": f"#/groups/{GROUP}",
    "dead letters": "#/dead-letters",
    "letters": f"#/dead-letters/{DEAD_LETTERS}?open=0-0&error=line",
    "broker": "#/broker",
    "not there": "#/groups/nobody",
}
PHONE = {"width": 320, "height": 256}  # a laptop's window of 1280 x 1024 at 400%


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, browser: Any, filled: tuple[BrokerProcess, Report]) -> Iterator[Visit]:
    with visit(browser, str(filled[0].http_url), scheme=request.param) as found:
        yield found


@pytest.fixture
def phone(browser: Any, filled: tuple[BrokerProcess, Report]) -> Iterator[Visit]:
    with visit(browser, str(filled[0].http_url), viewport=PHONE) as found:
        yield found


def shown(console: Visit, view: str) -> Any:
    page = console.open(VIEWS[view])
    if view == "not there":
        expect(page.get_by_role("alert").filter(has_text="nobody")).to_be_visible()
        console.errors.clear()  # the browser's own word about the 404
    return page


def test_axe_finds_nothing_on_any_view(themed: Visit) -> None:
    found = {}
    for view in VIEWS:
        shown(themed, view)
        found[view] = themed.violations()
    assert found == {view: [] for view in VIEWS}


def test_nothing_has_to_be_scrolled_sideways_at_320_pixels(phone: Visit) -> None:
    widths = {}
    for view in VIEWS:
        page = shown(phone, view)
        widths[view] = page.evaluate("document.documentElement.scrollWidth")
    assert max(widths.values()) <= PHONE["width"], widths


def test_axe_finds_nothing_on_a_phone(phone: Visit) -> None:
    for view in ("overview", "letters"):
        shown(phone, view)
        assert phone.violations() == []


def test_the_keyboard_alone_gets_to_a_dead_letter(console: Visit, report: Report) -> None:
    page = console.open()
    focused = page.locator(":focus")

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if focused.count() and name in (focused.inner_text() or focused.get_attribute("aria-label") or ""):
                outline = focused.evaluate("(element) => getComputedStyle(element).outlineStyle")
                assert outline != "none", f"the focus on {name} cannot be seen"
                return
        raise AssertionError(f"Tab never came to {name}")

    page.keyboard.press("Tab")
    expect(focused).to_have_text("Skip to content")
    expect(focused).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    tab_to("Dead letters →")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters")
    expect(page.locator("main")).to_be_focused()
    tab_to(TOPIC)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(f"^{TOPIC}, "))
    tab_to("0 · ")
    page.keyboard.press("Enter")
    letter = page.get_by_role("region", name="Letter", exact=True)
    expect(letter.get_by_role("heading", level=2)).to_have_text(re.compile("^Offset"))
    tab_to("Hex")
    page.keyboard.press("Enter")
    expect(letter.locator("pre.hex")).to_be_visible()
    # The live page has been drawn anew by now, more than once; the focus is where it was.
    expect(focused).to_have_text("Hex")


def test_those_who_want_less_motion_get_none(console: Visit) -> None:
    console.page.emulate_media(reduced_motion="reduce")
    page = console.open("#/broker")
    moving = (
        "[...document.querySelectorAll('*')].filter((each) => parseFloat(getComputedStyle(each).transitionDuration) > 0).length"
    )
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
