"""The page keeps up: lag that falls, a broker that goes and comes back, a reader who wants it to hold still."""

import re
from typing import Any

import pytest

from logsvc.cli.demo import GROUP, TOPIC
from tests.browser.driver import Visit, visit
from tests.browser.scenes import demo_broker, make_group_behind, working

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright").expect

LONGER_THAN_A_LOOK = "new Promise((done) => setTimeout(done, 2500))"  # on the page's own clock
LAYOUT_SHIFT_MAX = 0.1  # "good" by the measure of Core Web Vitals

# Every change of what one element says, as it happens.
WATCH = """(text) => {
  const element = [...document.querySelectorAll(".figures dt")].find((each) => each.textContent === text).nextElementSibling;
  window.seen = [element.textContent];
  const changes = {childList: true, characterData: true, subtree: true};
  new MutationObserver(() => window.seen.push(element.textContent)).observe(element, changes);
}"""


def figure(page: Any, name: str) -> Any:
    return page.locator(".figures > div").filter(has=page.get_by_text(name, exact=True)).locator("dd").first


def test_the_lag_of_a_group_falls_to_nothing_before_the_readers_eyes(browser: Any) -> None:
    with demo_broker() as (broker, report), visit(browser, str(broker.http_url)) as console:
        read = make_group_behind(broker.server, "late")
        page = console.open("#/groups/late")
        expect(figure(page, "Records behind")).to_have_text(f"{report.records_in - read:,}")
        expect(page.locator(".page-head .pill")).to_have_text("Behind, no members")
        page.evaluate(WATCH, "Records behind")
        with working(broker.server, lambda record: None, group="late"):
            expect(figure(page, "Records behind")).to_have_text("0")
            expect(page.locator(".page-head .pill")).to_have_text("Caught up")
            expect(page.get_by_role("table", name="Members")).to_contain_text(f"{TOPIC} 0, 1, 2, 3")
        assert page.evaluate("window.seen.at(-1)") == "0"


def test_a_broker_that_stops_is_missed_and_one_that_starts_is_found(browser: Any) -> None:
    with demo_broker("--console-writes") as (broker, _), visit(browser, str(broker.http_url)) as console:
        page = console.open("#/groups")
        row = page.get_by_role("row", name=re.compile(f"^{GROUP} "))
        expect(row).to_be_visible()
        console.away = True
        broker.stop()
        expect(page.get_by_role("alert")).to_contain_text("The broker has not answered since")
        expect(page.locator("#link-text")).to_have_text("Not reachable")
        expect(row).to_be_visible()  # what it last said stays
        # A view that has not been seen yet cannot be shown, and says why.
        page.get_by_role("link", name="Topics", exact=True).click()
        expect(page.get_by_role("main").get_by_role("alert")).to_contain_text("The broker cannot be reached")

        broker.start()
        expect(page.locator("#banner")).to_be_hidden()
        expect(page.locator("#link-text")).to_have_text("Live")
        console.away = False
        expect(page.get_by_role("row", name=re.compile(f"^{TOPIC} "))).to_be_visible()
        # Its token is another one now, and changes work without a reload.
        page.goto(f"{console.base}/console/#/dead-letters/dlq.{TOPIC}.{GROUP}")
        page.get_by_role("button", name="Redrive…").click()
        expect(page.get_by_role("dialog")).to_contain_text("would be put back")


def test_updates_can_be_paused(console: Visit) -> None:
    page = console.open(f"#/groups/{GROUP}")
    page.get_by_role("button", name="Pause updates").click()
    expect(page.locator("#link-text")).to_have_text("Paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(LONGER_THAN_A_LOOK)
    assert asked == []
    with page.expect_request("**/api/v1/broker"):
        page.get_by_role("button", name="Resume updates").click()
    expect(page.locator("#link-text")).to_have_text("Live")


def test_a_theme_that_was_chosen_is_remembered(console: Visit) -> None:
    page = console.open()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    console.settle()
    assert page.evaluate(background) == dark
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_a_tab_that_is_hidden_asks_nothing_until_it_is_looked_at(console: Visit) -> None:
    page = console.open()
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(LONGER_THAN_A_LOOK)
    assert asked == []
    with page.expect_request("**/api/v1/broker"):
        page.evaluate(hide, False)


def test_nothing_jumps_while_figures_change(console: Visit) -> None:
    shifts = """new Promise((done) => {
      let sum = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) sum += entry.value;
      }).observe({type: "layout-shift", buffered: true});
      setTimeout(() => done(sum), 5000);
    })"""
    page = console.open()
    moved = page.evaluate(shifts)
    print(f"cumulative layout shift of the first view and two looks: {moved:.4f}")
    assert moved < LAYOUT_SHIFT_MAX
