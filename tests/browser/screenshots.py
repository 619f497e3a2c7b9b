"""The pictures of the console in the documents: `python -m tests.browser.screenshots [MINUTES]`.

A broker, the demo and a small shop run for MINUTES, then each view is photographed. Nothing on the pictures is made up, so this
takes its time. They are written to docs/images as PNG; a picture above SIZE_BYTES_MAX is refused.
"""

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from logsvc.cli import demo
from logsvc_common.names import dead_letter_topic
from tests.browser.driver import chromium, visit
from tests.browser.scenes import demo_broker
from tests.browser.shop import ORDERS, PAYMENTS, shop

FOLDER = Path(__file__).parents[2] / "docs" / "images"
MINUTES = 12.0
SIZE_BYTES_MAX = 200_000
WIDE = {"width": 1320, "height": 860}
PHONE = {"width": 390, "height": 844}
# A bare machine has no face of its own for an interface; a desktop does. These are used where they are installed.
FACES = """() => {
  document.documentElement.style.setProperty("--sans", "Inter, system-ui, sans-serif");
  document.documentElement.style.setProperty("--mono", "'JetBrains Mono', ui-monospace, monospace");
}"""


class Picture(NamedTuple):
    name: str
    address: str
    scheme: str = "light"
    viewport: dict[str, int] = WIDE


LETTERS = f"#/dead-letters/{dead_letter_topic(PAYMENTS, 'payments')}"
PICTURES = [
    Picture("console-overview-light", "#/"),
    Picture("console-overview-dark", "#/", "dark"),
    Picture("console-group", "#/groups/billing", "dark", {"width": 1320, "height": 1000}),
    Picture("console-records", f"#/topics/{ORDERS}/records"),
    Picture("console-dead-letters", LETTERS, "light", {"width": 1320, "height": 900}),
    Picture("console-redrive", LETTERS, "dark"),
    Picture("console-phone", "#/", "dark", PHONE),
    Picture("console-phone-group", "#/groups/billing", "light", PHONE),
]


def prepare(name: str, page: Any) -> None:
    """What a reader would have clicked on."""
    if name in ("console-records", "console-dead-letters"):
        page.locator("tbody button").nth(3).click()
    if name == "console-redrive":
        page.get_by_role("button", name="Redrive…").click()
        page.get_by_text("would be put back").wait_for()


def take(browser: Any, base: str, picture: Picture) -> Path:
    path = FOLDER / f"{picture.name}.png"
    with visit(browser, base, scheme=picture.scheme, viewport=picture.viewport) as console:
        page = console.open(picture.address)
        page.evaluate(FACES)
        prepare(picture.name, page)
        # Two more looks of the page at its broker: charts are drawn and in the right face then.
        for _ in range(2):
            page.wait_for_event("response", lambda response: response.url.endswith("/api/v1/broker"))
        page.evaluate("document.dispatchEvent(new Event('themechange'))")
        page.wait_for_timeout(500)
        page.screenshot(path=str(path))
    size = path.stat().st_size
    if size > SIZE_BYTES_MAX:
        raise SystemExit(f"{path.name} has {size} bytes, more than {SIZE_BYTES_MAX}")
    return path


def main(arguments: list[str]) -> None:
    seconds = 60 * float(arguments[0] if arguments else MINUTES)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with demo_broker("--console-writes") as (broker, report), shop(broker.server, seconds):
        print(
            f"{demo.TOPIC}: {report.handled} handled, {report.dead_lettered} dead letters; the shop is open for {seconds:.0f} s"
        )
        time.sleep(seconds)
        with chromium() as browser:
            for picture in PICTURES:
                path = take(browser, str(broker.http_url), picture)
                print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
