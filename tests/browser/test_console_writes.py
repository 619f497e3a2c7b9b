"""With --console-writes: redrive counted, confirmed, watched and cancelled; purge; delete; resume. All on a real broker."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from logsvc.cli.demo import DEAD_LETTERS, GROUP, TOPIC, Report
from logsvc.testing import BrokerProcess
from logsvc_client import RetryPolicy
from tests.browser.driver import Visit, visit
from tests.browser.scenes import demo_broker, handle_line, make_paused_record, working

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright").expect

LETTERS = f"#/dead-letters/{DEAD_LETTERS}"
ONCE = RetryPolicy(max_attempts=1)
PUT_BACK_BEFORE = """async (topic) => {
  const answer = await fetch(`/api/v1/dead-letters/${topic}/letters?redrives_from=1&limit=500`);
  return (await answer.json()).letters;
}"""


@pytest.fixture
def writable(browser: Any) -> Iterator[tuple[Visit, BrokerProcess, Report]]:
    with demo_broker("--console-writes") as (broker, report), visit(browser, str(broker.http_url)) as console:
        yield console, broker, report


def test_a_redrive_is_counted_confirmed_and_watched_to_its_end(writable: tuple[Visit, BrokerProcess, Report]) -> None:
    console, broker, report = writable
    total = report.dead_lettered
    page = console.open(LETTERS)
    page.get_by_role("button", name="Redrive…").click()
    dialog = page.get_by_role("dialog", name="Redrive dead letters")
    expect(dialog).to_contain_text(f"{total} letters would be put back")
    assert console.violations() == []
    # A dry run changes nothing, and neither does leaving.
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Redrive…")).to_be_focused()
    expect(page.get_by_role("region", name="Redrives")).to_be_hidden()

    page.get_by_role("button", name="Redrive…").click()
    dialog.get_by_role("button", name=f"Redrive {total} letters").click()
    redrive = page.get_by_role("table", name="Redrives").get_by_role("row").nth(1)
    expect(redrive).to_contain_text("Done")
    expect(redrive).to_contain_text(str(total))
    expect(page.get_by_text(f"{total} put back so far")).to_be_visible()

    # The same lines fail again, for good: new letters, which say that they were put back before.
    with working(broker.server, handle_line, retry=ONCE):
        expect(page.get_by_text(re.compile(rf"^{2 * total}$")).first).to_be_visible()
    console.open(f"#/groups/{GROUP}")
    expect(page.get_by_text("nothing has failed")).to_be_visible()
    again = page.evaluate(PUT_BACK_BEFORE, DEAD_LETTERS)
    assert [letter["redrives"] for letter in again] == [1] * total
    source = again[0]["source"]
    console.open(f"{LETTERS}?partition={source['partition']}&offset_from={source['offset']}&offset_to={source['offset']}")
    letters = page.get_by_role("table", name="Dead letters").get_by_role("button")
    expect(letters).to_have_count(2)  # the first failure, and the one after
    letters.nth(1).click()
    expect(page.get_by_role("region", name="Letter", exact=True)).to_contain_text("Put back before1")


def test_a_slow_redrive_of_a_few_is_cancelled(writable: tuple[Visit, BrokerProcess, Report]) -> None:
    console, _, _ = writable
    page = console.open(f"{LETTERS}?partition=0")
    page.get_by_role("button", name="Redrive…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Letters per second").fill("1")
    dialog.get_by_label("No more than").fill("5")
    dialog.get_by_role("button", name="Redrive 5 letters").click()
    page.get_by_role("button", name=re.compile("Cancel redrive")).click()
    expect(page.get_by_role("table", name="Redrives")).to_contain_text("Cancelled")


def test_a_purge_takes_the_name_typed_out(writable: tuple[Visit, BrokerProcess, Report]) -> None:
    console, _, report = writable
    page = console.open(LETTERS)
    page.get_by_role("button", name="Purge…").click()
    dialog = page.get_by_role("dialog", name="Throw all letters away")
    purge = dialog.get_by_role("button", name="Purge all letters")
    expect(dialog).to_contain_text(f"{report.dead_lettered} letters")
    expect(purge).to_be_disabled()
    dialog.get_by_label(f"Type {DEAD_LETTERS} to confirm").press_sequentially(DEAD_LETTERS[:-1])
    expect(purge).to_be_disabled()
    dialog.get_by_role("textbox").press_sequentially(DEAD_LETTERS[-1])
    assert console.violations() == []
    purge.click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_text("No letters here.")).to_be_visible()


def test_a_topic_is_deleted_when_its_name_is_typed_out(writable: tuple[Visit, BrokerProcess, Report]) -> None:
    console, _, report = writable
    page = console.open(f"#/topics/{TOPIC}")
    page.get_by_role("button", name="Delete…").click()
    dialog = page.get_by_role("dialog", name="Delete the topic")
    delete = dialog.get_by_role("button", name="Delete the topic")
    expect(dialog).to_contain_text(f"{report.records_in:,} records")
    expect(dialog).to_contain_text(GROUP)
    expect(delete).to_be_disabled()
    assert console.violations() == []
    dialog.get_by_label(f"Type {TOPIC} to confirm").fill(TOPIC)
    delete.click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", name="Topics", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=TOPIC, exact=True)).to_be_hidden()
    # The broker's own topic offers no such thing.
    console.open("#/topics/__logsvc_groups")
    expect(page.get_by_role("link", name="Browse records")).to_be_visible()
    expect(page.get_by_role("button", name="Delete…")).to_be_hidden()


def test_resume_gives_paused_records_another_try(writable: tuple[Visit, BrokerProcess, Report]) -> None:
    console, broker, _ = writable
    make_paused_record(broker.server, "careful")
    page = console.open("#/groups/careful")
    expect(page.get_by_text("1 paused, out of tries")).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    expect(page.get_by_text("Resumed. 1 paused record is tried again.")).to_be_visible()
    expect(page.get_by_text("1 waiting for their next try")).to_be_visible()
