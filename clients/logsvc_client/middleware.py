"""Middleware of `run`: hooks around each call of the handler, for logging, tracing, metrics.

    before (in the order given) -> handler -> after, or on_failure (in the opposite order)

The hooks of one record run where its handler does, on the same thread or in the same task, so context variables set by
`before` are seen by the handler and by the other hooks. There is one exception: of a handler on a thread that has run out of
its time, `on_failure` is called by the thread that called `run`.
"""

import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar

from logsvc_client.records import Record

log = logging.getLogger(__name__)


class Middleware:
    """Hooks that do nothing: override those that you need.

    They are called for every try of a record (`record.attempt`), not for records that only wait behind another, and may be
    called from several threads at once. For `AsyncConsumer` they must not block. A record that goes back unhandled at the end
    of a drain gets neither `after` nor `on_failure`.
    """

    def before(self, record: Record) -> None:
        """The handler is about to be called. What this raises is the record's failure, and the handler is not called."""

    def after(self, record: Record) -> None:
        """The handler has returned. What this raises is logged; the record is handled even so."""

    def on_failure(self, record: Record, error: BaseException) -> None:
        """The handler, or the `before` of any middleware, has raised `error`, or the time is up (HandlerTimeout). What this
        raises is logged."""


class Chain:
    """The middleware of one `run`."""

    def __init__(self, middleware: Sequence[Middleware]) -> None:
        self._forward = tuple(middleware)
        self._backward = self._forward[::-1]

    def before(self, record: Record) -> None:
        """Raises what a hook raises; the others' `on_failure` follows, that of hooks not reached too."""
        for each in self._forward:
            each.before(record)

    def after(self, record: Record) -> None:
        """Called when the verdict is in."""
        for each in self._backward:
            try:
                each.after(record)
            except Exception:
                log.exception("middleware %s, after the record at offset %d", type(each).__name__, record.offset)

    def on_failure(self, record: Record, error: BaseException) -> None:
        """Called when the verdict is in."""
        for each in self._backward:
            try:
                each.on_failure(record, error)
            except Exception:
                log.exception("middleware %s, failure of the record at offset %d", type(each).__name__, record.offset)


class LoggingMiddleware(Middleware):
    """One line for each try: `level` for those that went well, WARNING for failures."""

    def __init__(self, logger: logging.Logger = log, level: int = logging.INFO) -> None:
        self._logger = logger
        self._level = level
        self._began: ContextVar[float] = ContextVar("began")

    def before(self, record: Record) -> None:
        self._began.set(time.perf_counter())

    def after(self, record: Record) -> None:
        took_ms = (time.perf_counter() - self._began.get()) * 1_000
        self._logger.log(
            self._level, "%s-%d@%d: try %d took %.1f ms", record.topic, record.partition, record.offset, record.attempt, took_ms
        )

    def on_failure(self, record: Record, error: BaseException) -> None:
        where = (record.topic, record.partition, record.offset, record.attempt)
        self._logger.warning("%s-%d@%d: try %d failed: %s: %s", *where, type(error).__name__, error)
