"""Moved to `tests.history`."""

from tests.history.log import Anomaly, Found, Place, Polled, Sent, anomalies, counted, reading_anomalies

__all__ = ["Anomaly", "Found", "Place", "Polled", "Sent", "anomalies", "counted", "reading_anomalies"]
