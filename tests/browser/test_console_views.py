"""The console shows what the broker knows, quickly, as text, and asks nobody else."""

import re

import pytest

from logsvc.cli.demo import DEAD_LETTERS, GROUP, TOPIC, Report
from logsvc_common.names import dead_letter_topic
from tests.browser.driver import Visit
from tests.browser.scenes import HOSTILE_GROUP, HOSTILE_TOPIC, SCRIPT

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright").expect

LOADED_MS_MAX = 5_000  # on a machine busy with other tests; about 300 ms when it is not
FIRST_LOAD = """() => {
  const [page] = performance.getEntriesByType("navigation");
  return {loaded: page.loadEventEnd, shown: performance.now()};
}"""


def test_the_first_view_answers_its_three_questions_at_once(console: Visit, report: Report) -> None:
    page = console.open()
    times = page.evaluate(FIRST_LOAD)
    print(f"page loaded after {times['loaded']:.0f} ms, its data shown after {times['shown']:.0f} ms")
    assert 0 < times["loaded"] < LOADED_MS_MAX

    behind = page.get_by_role("region", name="Is anyone behind?")
    expect(behind).to_contain_text("Nobody is behind")
    failing = page.get_by_role("region", name="What is failing?")
    expect(failing).to_contain_text(f"{report.dead_lettered + 1} dead letters")
    # On a machine that is busy with other tests the disk may well be slow.
    expect(page.get_by_role("region", name="Is the broker well?")).to_contain_text(
        re.compile("The broker is well|The disk is slow")
    )
    expect(page.get_by_role("row", name=re.compile(f"^{GROUP} Caught up"))).to_contain_text(str(report.dead_lettered))
    expect(page.get_by_role("row", name=re.compile(f"^{TOPIC} "))).to_contain_text(f"{report.records_in:,}")
    expect(page.locator("#link-text")).to_have_text("Live")


def test_from_a_topic_to_a_record_of_it(console: Visit, report: Report) -> None:
    page = console.open("#/topics")
    page.get_by_role("link", name=TOPIC, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(TOPIC)
    expect(page.get_by_role("table", name="Partitions").get_by_role("row")).to_have_count(5)
    expect(page.get_by_role("region", name="Read by")).to_contain_text(GROUP)

    page.get_by_role("link", name="Browse records").click()
    detail = page.get_by_role("region", name="Record", exact=True)
    page.get_by_label("Start at").select_option("Oldest")
    page.get_by_role("button", name="Read").click()
    page.get_by_role("button", name="Show record 0", exact=True).click()
    expect(detail.get_by_role("heading", name="Offset 0")).to_be_visible()
    first = detail.locator("pre").inner_text()
    detail.get_by_role("button", name="Next record").click()
    expect(detail.get_by_role("heading", name="Offset 1")).to_be_visible()
    detail.get_by_role("button", name="Previous record").click()
    expect(detail.locator("pre")).to_have_text(first)
    with page.expect_download() as download:
        detail.get_by_role("link", name="Download").click()
    assert download.value.path().read_text() == first

    # What is on the page is in the address.
    page.reload()
    console.settle()
    expect(detail.get_by_role("heading", name="Offset 0")).to_be_visible()


def test_records_are_found_by_offset_time_and_key(console: Visit) -> None:
    page = console.open(f"#/topics/{HOSTILE_TOPIC}/records")
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(5)
    page.get_by_label("Start at").select_option("Offset")
    page.get_by_label("From this offset").fill("2")
    page.get_by_role("button", name="Read").click()
    expect(rows).to_have_count(3)
    page.get_by_label("Start at").select_option("Key")
    page.get_by_label("Exactly this key").fill("json")
    page.get_by_role("button", name="Read").click()
    expect(rows).to_have_count(2)
    page.get_by_label("Start at").select_option("Time")
    page.get_by_role("button", name="Read").click()
    expect(rows).to_have_count(5)  # an hour ago, unless told otherwise

    page.goto(f"{console.base}/console/#/topics/{HOSTILE_TOPIC}/records?from=offset&value=99")
    expect(page.get_by_role("alert").filter(has_text="offsets 0 to 4")).to_be_visible()
    assert any("404" in error for error in console.errors)
    console.errors.clear()


def test_values_are_shown_as_json_text_and_hex(console: Visit) -> None:
    page = console.open(f"#/topics/{HOSTILE_TOPIC}/records?open=1")
    detail = page.get_by_role("region", name="Record", exact=True)
    value = detail.locator("pre")
    expect(value).to_have_text('{\n  "n": 12345678901234567890,\n  "list": [\n    1,\n    {}\n  ]\n}')
    detail.get_by_role("button", name="Text", exact=True).click()
    expect(value).to_have_text('{"n": 12345678901234567890, "list": [1, {}]}')
    detail.get_by_role("button", name="Hex", exact=True).click()
    expect(value).to_contain_text("000000  7b 22 6e 22")
    page.get_by_role("button", name="Show record 2", exact=True).click()
    expect(value).to_contain_text("000030  30 31 32 33 34 35 36 37  01234567")
    expect(detail.get_by_text("0xff00", exact=True)).to_be_visible()  # its key: a list has room for a few bytes
    page.get_by_role("button", name="Show record 3", exact=True).click()
    expect(detail).to_contain_text("No value (a tombstone)")


def test_markup_in_a_record_and_in_its_dead_letter_is_text(console: Visit) -> None:
    page = console.open(f"#/topics/{HOSTILE_TOPIC}/records?open=0")
    detail = page.get_by_role("region", name="Record", exact=True)
    expect(detail.locator("pre")).to_have_text(SCRIPT)
    expect(detail.get_by_text(SCRIPT, exact=True)).to_have_count(4)  # key, value, a header's name and its value

    page = console.open(f"#/dead-letters/{dead_letter_topic(HOSTILE_TOPIC, HOSTILE_GROUP)}?open=0-0")
    letter = page.get_by_role("region", name="Letter", exact=True)
    expect(letter.get_by_role("heading", name="Offset 0")).to_be_visible()
    expect(letter.locator(".error-line")).to_have_text(SCRIPT)
    expect(page.get_by_role("table", name="Most common errors")).to_contain_text(SCRIPT)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0


def test_dead_letters_are_counted_explained_and_filtered(console: Visit, report: Report) -> None:
    page = console.open("#/dead-letters")
    page.get_by_role("row", name=re.compile(f"^{TOPIC} {GROUP} {report.dead_lettered} ")).get_by_role(
        "link", name=TOPIC
    ).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{TOPIC}, failed by {GROUP}")
    expect(page.get_by_role("table", name="Most common errors")).to_contain_text("ValueError")
    letters = page.get_by_role("table", name="Dead letters")
    expect(letters.get_by_role("row")).to_have_count(min(50, report.dead_lettered) + 1)

    letters.get_by_role("button").first.click()
    letter = page.get_by_role("region", name="Letter", exact=True)
    expect(letter).to_contain_text("the line does not match the access log's pattern")
    expect(letter).to_contain_text("Traceback")
    expect(letter.get_by_role("link", name=re.compile(f"{TOPIC}-"))).to_be_visible()

    page.get_by_text("Filter letters").click()
    page.get_by_label("Error contains").fill("no such error")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("No letter matches.")).to_be_visible()
    page.get_by_role("button", name="Clear").click()
    expect(letters.get_by_role("row")).to_have_count(min(50, report.dead_lettered) + 1)


def test_the_record_browser_names_the_offsets_that_there_are(console: Visit) -> None:
    console.open(f"#/topics/{HOSTILE_TOPIC}/records?partition=0")
    expect(console.page.get_by_text("Partition 0 holds 0 to 3")).to_be_visible()


def test_without_console_writes_changes_are_switched_off_and_explained(console: Visit) -> None:
    page = console.open(f"#/dead-letters/{DEAD_LETTERS}")
    expect(page.get_by_role("button", name="Redrive…")).to_be_disabled()
    expect(page.get_by_role("button", name="Purge…")).to_be_disabled()
    expect(page.get_by_text("start the broker with --console-writes")).to_be_visible()
    page = console.open(f"#/groups/{GROUP}")
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_disabled()
    expect(page.get_by_text("start the broker with --console-writes")).to_be_visible()


def test_what_is_not_there_is_said_with_a_way_back(console: Visit) -> None:
    page = console.open("#/topics/nowhere")
    expect(page.get_by_role("alert").filter(has_text="nowhere")).to_be_visible()
    page.get_by_role("link", name="Back to the overview").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert console.errors  # the browser's own word about the 404
    console.errors.clear()


PATCHED = """async ([seed, rounds]) => {
  const {h, render} = await import("/console/js/dom.js");
  let state = seed;
  const chance = (limit) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  const tree = (depth) => {
    const child = () => (depth && chance(3) ? tree(depth - 1) : () => ["text", "more", ""][chance(3)]);
    const children = Array.from({length: chance(6)}, child);
    const props = {class: ["a", "b", null][chance(3)], title: chance(2) ? String(chance(9)) : null};
    return () => h(["p", "span", "em"][chance(3)], props, children.map((make) => make()));
  };
  const list = () => {
    const drawn = Array.from({length: 9}, (_, key) => [chance(100), key]).sort(([a], [b]) => a - b);
    const keys = drawn.slice(0, chance(10)).map(([, key]) => key);
    return keys.map((key) => h(["li", "p"][chance(2)], {key}, String(chance(4)), tree(2)()));
  };
  const shown = document.createElement("div");
  for (let round = 0; round < rounds; round += 1) {
    const before = state;
    const nodes = () => { state = before; return chance(4) ? [list(), tree(3)()] : [tree(3)(), tree(3)()]; };
    render(shown, nodes());
    const fresh = document.createElement("div");
    fresh.append(...nodes().flat(Infinity));
    if (!shown.isEqualNode(fresh)) return {round, shown: shown.innerHTML, fresh: fresh.innerHTML};
  }
  return null;
}"""


@pytest.mark.parametrize("seed", [1, 77, 4242])
def test_what_is_patched_looks_like_what_is_made_anew(console: Visit, seed: int) -> None:
    page = console.open()
    assert page.evaluate(PATCHED, [seed, 400]) is None


def test_a_row_that_moves_stays_the_element_it_was(console: Visit) -> None:
    page = console.open()
    kept = """async () => {
      const {h, render} = await import("/console/js/dom.js");
      const parent = document.createElement("ul");
      const rows = (keys) => keys.map((key) => h("li", {key}, h("input", {value: key})));
      render(parent, rows(["a", "b", "c"]));
      const [a, b, c] = parent.children;
      b.firstChild.value = "typed";
      render(parent, rows(["c", "new", "b"]));
      const now = [...parent.children];
      return [now[0] === c, now[2] === b, b.firstChild.value, a.isConnected, now.length];
    }"""
    assert page.evaluate(kept) == [True, True, "typed", False, 3]
