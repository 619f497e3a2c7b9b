"""The table of metrics in the documentation and what a broker serves are the same list."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from logsvc.metrics import BrokerMetrics
from logsvc_common.errors import UnknownTopic
from logsvc_common.messages import Api

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    metrics = BrokerMetrics()
    metrics.request_error(Api.FETCH, UnknownTopic)
    served = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(metrics.render()[0].decode())
    }
    rows = re.findall(r"^\| (`(?:logsvc|process)_.*?) \|", OPERATIONS.read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert served == documented
