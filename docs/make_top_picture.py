"""Draws docs/images/top.svg, the picture of `logsvc top`: `python docs/make_top_picture.py`.

The samples are made up, so that the picture shows everything at once and comes out the same every time: a group that catches up
after a rush, one whose downstream is down, one that nobody runs, dead letters. What is drawn from them is the real thing.

With `--check` nothing is written, and the exit code is 1 when the picture says something else than the code would: the tests do
that. Only its text is compared, because the drawing round it is rich's own and differs from version to version.
"""

import io
import math
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from logsvc.cli.top_answers import Status
from logsvc.cli.top_keys import Screen
from logsvc.cli.top_model import HISTORY_SAMPLES_MAX, History, Sample
from logsvc.cli.top_view import frame
from logsvc_common.messages import GroupListing, HelloReply, PartitionDescription, TopicDescription

PLACE = Path(__file__).parent / "images" / "top.svg"
COLUMNS, ROWS = 132, 24
HOUR_MS = 3_600_000
STARTED_MS = 1_764_000_000_000
PACES = {"orders": 820, "payments": 310, "clicks": 5_400, "emails": 40}  # records a second
PARTITIONS = {"orders": 4, "payments": 4, "clicks": 8, "emails": 2}


def appended(topic: str, second: int) -> int:
    """Records in a topic by then: more and less in waves, and a rush into `orders`."""
    wave = PACES[topic] * (second + 3 * math.sin(second / 5 + len(topic)))
    rush = 2_600 * max(0, min(second, 38) - 25) if topic == "orders" else 0
    return int(100_000 + wave + rush)


def groups(second: int) -> list[GroupListing]:
    """Who reads what, and how far."""
    orders, payments, clicks, emails = (appended(topic, second) for topic in PACES)
    rush = 2_300 * max(0, min(second, 38) - 25) - 1_100 * max(0, second - 38)
    late = max(0, 40 + rush)
    down = max(0, payments - appended("payments", 31))
    return [
        GroupListing("billing", "stable", 3, ["orders"], late, 2, "closed", late // 2, {"waiting": 2}, orders - late),
        GroupListing("fraud-check", "stable", 2, ["payments"], down, 31, "open", 29_000, {"waiting": 31}, payments - down),
        GroupListing("click-counts", "stable", 8, ["clicks"], 1_900, 0, "closed", 350, {}, clicks - 1_900),
        GroupListing("mailer", "stable", 1, ["emails"], 0, 0, "closed", 0, {}, emails),
        GroupListing(
            "old-report", "empty", 0, ["clicks"], clicks - 100_000, 0, "closed", 3_600_000 + second * 1_000, {}, 100_000
        ),
    ]


def topics(second: int) -> list[TopicDescription]:
    """What there is to read."""
    ends = {topic: appended(topic, second) for topic in PACES} | {"dlq.orders.billing": 12, "dlq.emails.mailer": 3}
    found = []
    for topic, end in ends.items():
        count = PARTITIONS.get(topic, 2)
        shares = [end // count + (number < end % count) for number in range(count)]
        partitions = [PartitionDescription(number, 0, share, 190 * share, 1, "online") for number, share in enumerate(shares)]
        found.append(TopicDescription(topic=topic, topic_id=topic, partition_count=count, partitions=partitions))
    return found


def picture() -> str:
    """The picture as SVG, without the fonts it would fetch from elsewhere."""
    history, broker = History(), HelloReply("b", "logsvc/0.1.0", 0, [])
    for second in range(HISTORY_SAMPLES_MAX):
        history.add(Sample(second, STARTED_MS + second * 1_000, broker, groups(second), topics(second)))
    overview = history.overview()
    assert overview is not None, "there are samples"
    status = Status("tcp://127.0.0.1:9292", 1.0, float(HISTORY_SAMPLES_MAX - 1))
    lines = frame(overview, Screen(), status, COLUMNS, ROWS)
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.no_color = False  # whatever the environment of whoever draws it says
    console.print(Text("\n", no_wrap=True).join(lines))
    drawing = console.export_svg(title="logsvc top", unique_id="logsvc-top")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)


def words(drawing: str) -> str:
    """The text of a picture."""
    return "".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawing)).replace("&#160;", "").replace(" ", "")


def main(arguments: list[str]) -> int:
    drawing = picture()
    if "--check" in arguments:
        if words(drawing) == words(PLACE.read_text()):
            return 0
        print(f"{PLACE.name} is an old picture; run: python docs/make_top_picture.py", file=sys.stderr)
        return 1
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(drawing)
    print(f"{PLACE.name} is drawn anew")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
