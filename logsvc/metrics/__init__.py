"""What the broker tells Prometheus: one `BrokerMetrics` per broker, nothing global.

Two kinds of series, by where their truth lives.

* **Counted as it happens** (`counters`, `histogram`): appends, fetches, requests, failures. Hot paths
  hold the child of a counter (`topic(name)`, `group(group, topic)`) and call `inc`, once a batch or request.
* **Read at the scrape** (`samples`, `families`): offsets, sizes, states, lag. They already exist in the log and the
  coordinator, so nothing is kept here. The broker gives them as columns, piece by piece; each piece becomes text (`text`) in
  one small step, so that a scrape of 150,000 series runs between requests and never instead of them.

Names, labels and units are those of the project's conventions (base units, `_total` on counters, `promtool check metrics`).
Label values come from checked names, enums and error classes only. Every family is limited, and
`logsvc_metrics_series_dropped{family}` says how many series were folded or left out. What has not been committed has no
series; there is no -1.
"""

from logsvc.metrics.broker_metrics import BrokerMetrics, GroupCounters, ScrubCounters, Source, TopicCounters
from logsvc.metrics.counters import LABEL_SETS_MAX, OTHER, Counter
from logsvc.metrics.histogram import Histogram
from logsvc.metrics.quantiles import HistogramCounts, quantile
from logsvc.metrics.samples import (
    GROUP_STATES,
    PARTITION_STATES,
    ROWS_PER_SAMPLE_MAX,
    SERIES_PER_FAMILY_MAX,
    DeadLetterSample,
    DeferredSample,
    DiskSample,
    GroupSample,
    PartitionColumns,
    PositionColumns,
    Sample,
    ScrubSample,
)

__all__ = [
    "GROUP_STATES",
    "LABEL_SETS_MAX",
    "OTHER",
    "PARTITION_STATES",
    "ROWS_PER_SAMPLE_MAX",
    "SERIES_PER_FAMILY_MAX",
    "BrokerMetrics",
    "Counter",
    "DeadLetterSample",
    "DeferredSample",
    "DiskSample",
    "GroupCounters",
    "GroupSample",
    "Histogram",
    "HistogramCounts",
    "PartitionColumns",
    "PositionColumns",
    "Sample",
    "ScrubCounters",
    "ScrubSample",
    "Source",
    "TopicCounters",
    "quantile",
]
