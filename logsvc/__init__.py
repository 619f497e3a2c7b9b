"""logsvc: a durable partitioned log with consumer groups, retries and dead letters, run by one machine."""

__version__ = "0.1.0"
