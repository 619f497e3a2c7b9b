"""`run` against a real broker: time limits, drains, middleware, and what ends it."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest

from logsvc.testing import BrokerProcess
from logsvc_client import (
    Admin,
    AsyncConsumer,
    Consumer,
    HandlerTimeout,
    InvalidConfig,
    LoggingMiddleware,
    Middleware,
    Producer,
    Record,
    RetryPolicy,
    renew,
)

WAIT = 20.0
SOON = RetryPolicy(max_attempts=3, initial_ms=20, max_ms=50)
LIMIT_MS = 150


@pytest.fixture
def admin(broker: BrokerProcess) -> Iterator[Admin]:
    with Admin(broker.server) as made:
        yield made


@pytest.fixture
def topic(admin: Admin, request: pytest.FixtureRequest) -> str:
    name = f"run.{request.node.name[:100].translate(str.maketrans('[]', '..'))}"
    admin.create_topic(name, partitions=2)
    return name


def produce(broker: BrokerProcess, topic: str, count: int, *, keys: int = 4) -> None:
    with Producer(broker.server) as producer:
        for number in range(count):
            producer.send(topic, b"%d" % number, key=b"k%d" % (number % keys))


def number_of(record: Record) -> int:
    assert record.value is not None
    return int(record.value)


def run_until(consumer: Consumer, handler: Callable[[Record], object], done: Callable[[], bool], **run: object) -> None:
    ended = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + WAIT
        while not done() and time.monotonic() < deadline and not ended.wait(0.01):
            pass
        consumer.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        consumer.run(handler, **run)  # type: ignore[arg-type]
    finally:
        ended.set()
        watcher.join()


async def run_async(consumer: AsyncConsumer, handler: object, done: Callable[[], bool], **run: object) -> None:
    async def watch() -> None:
        deadline = time.monotonic() + WAIT
        while not done() and time.monotonic() < deadline:  # noqa: ASYNC110 -- the condition is any function
            await asyncio.sleep(0.01)
        consumer.stop()

    watcher = asyncio.create_task(watch())
    await consumer.run(handler, **run)  # type: ignore[arg-type]
    await watcher


class TestHandlersThatHang:
    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_its_record_fails_and_is_tried_again_in_the_order_of_its_key(
        self, broker: BrokerProcess, topic: str, concurrency: int
    ) -> None:
        produce(broker, topic, 40)
        let_go = threading.Event()
        finished: dict[bytes | None, list[int]] = defaultdict(list)
        failures: list[tuple[int, str]] = []

        class Noting(Middleware):
            def on_failure(self, record: Record, error: BaseException) -> None:
                failures.append((number_of(record), str(error)))
                assert isinstance(error, HandlerTimeout)

        def handler(record: Record) -> None:
            if number_of(record) == 5 and record.attempt == 1:
                let_go.wait(WAIT)
                return  # Much too late: nobody listens.
            finished[record.key].append(number_of(record))

        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            done = lambda: sum(map(len, finished.values())) >= 40  # noqa: E731
            limits = {"handler_timeout_ms": LIMIT_MS, "concurrency": concurrency, "middleware": [Noting()]}
            run_until(consumer, handler, done, retry=SOON, **limits)
            let_go.set()
        assert sorted(number for numbers in finished.values() for number in numbers) == list(range(40))
        assert all(numbers == sorted(numbers) for numbers in finished.values())
        [(number, message)] = failures
        assert number == 5
        assert "did not come back within 150 ms: it is in " in message
        assert "threading.py" in message

    def test_one_that_renews_may_take_long_and_one_that_was_too_late_is_told_so(
        self, broker: BrokerProcess, topic: str
    ) -> None:
        produce(broker, topic, 2)
        tries: Counter[int] = Counter()
        ended: list[int] = []
        refused = threading.Event()

        def handler(record: Record) -> None:
            tries[number_of(record)] += 1
            if number_of(record) == 0:
                for _ in range(8):
                    time.sleep(LIMIT_MS / 3_000)
                    renew()
            elif record.attempt == 1:
                time.sleep(3 * LIMIT_MS / 1_000)
                with pytest.raises(HandlerTimeout, match="was up"):
                    renew()
                refused.set()
            ended.append(number_of(record))

        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            run_until(consumer, handler, lambda: len(ended) == 3, retry=SOON, handler_timeout_ms=LIMIT_MS)
        assert tries == {0: 1, 1: 2}
        assert refused.is_set()

    def test_renewing_outside_a_handler_or_without_a_limit_does_nothing(self) -> None:
        renew()

    def test_a_limit_below_one_is_refused(self, broker: BrokerProcess, topic: str) -> None:
        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            with pytest.raises(InvalidConfig, match="handler_timeout_ms is 0"):
                consumer.run(print, handler_timeout_ms=0)
            with pytest.raises(InvalidConfig, match="drain_timeout_ms is -1"):
                consumer.run(print, drain_timeout_ms=-1)


class TestTheEnd:
    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_at_sigterm_what_runs_is_finished_and_the_rest_goes_back_unspent(
        self, broker: BrokerProcess, topic: str, concurrency: int
    ) -> None:
        produce(broker, topic, 200, keys=40)
        done: list[tuple[int, int]] = []

        def handler(record: Record) -> None:
            if len(done) == 50:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)
            done.append((number_of(record), record.attempt))

        for _ in range(2):
            with Consumer(topic, group_id=topic, server=broker.server) as consumer:
                run_until(consumer, handler, lambda: len(set(done)) == 200, concurrency=concurrency, drain_timeout_ms=10_000)
        assert set(done) == {(number, 1) for number in range(200)}
        # Side by side, some are finished ahead of earlier ones of their partition that were not begun, and are read again.
        assert len(done) == 200 if concurrency == 1 else len(done) < 250

    def test_a_handler_that_outlasts_the_drain_is_left_behind_and_its_record_goes_to_the_next_owner(
        self, broker: BrokerProcess, topic: str
    ) -> None:
        produce(broker, topic, 3, keys=1)
        let_go, began = threading.Event(), threading.Event()
        seen: list[tuple[int, int]] = []

        def hangs(record: Record) -> None:
            if number_of(record) == 1:
                began.set()
                let_go.wait(WAIT)

        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            before = time.monotonic()
            run_until(consumer, hangs, began.is_set, drain_timeout_ms=100)
            assert time.monotonic() - before < WAIT / 2
        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            run_until(consumer, lambda record: seen.append((number_of(record), record.attempt)), lambda: len(seen) == 2)
        let_go.set()
        assert seen == [(1, 1), (2, 1)]

    @pytest.mark.parametrize("concurrency", [1, 2])
    def test_a_handler_that_wants_the_process_to_end_ends_the_run(
        self, broker: BrokerProcess, topic: str, concurrency: int
    ) -> None:
        produce(broker, topic, 10)

        def handler(record: Record) -> None:
            raise SystemExit(3)

        with Consumer(topic, group_id=topic, server=broker.server) as consumer, pytest.raises(SystemExit):
            consumer.run(handler, concurrency=concurrency)


class TestMiddleware:
    def test_hooks_are_nested_around_each_try_and_their_own_troubles_are_only_logged(
        self, broker: BrokerProcess, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        produce(broker, topic, 2, keys=1)
        events: list[str] = []

        class Noting(Middleware):
            def __init__(self, name: str) -> None:
                self.name = name

            def before(self, record: Record) -> None:
                events.append(f"{self.name} before {number_of(record)}.{record.attempt}")

            def after(self, record: Record) -> None:
                events.append(f"{self.name} after {number_of(record)}.{record.attempt}")
                raise RuntimeError("trouble in a hook")

            def on_failure(self, record: Record, error: BaseException) -> None:
                events.append(f"{self.name} failure {number_of(record)}.{record.attempt} {error}")

        def handler(record: Record) -> None:
            events.append(f"handler {number_of(record)}.{record.attempt}")
            if record.attempt == 1 and number_of(record) == 0:
                raise ValueError("no")

        middleware = [Noting("outer"), Noting("inner"), LoggingMiddleware(level=logging.INFO)]
        caplog.set_level(logging.INFO)
        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            run_until(consumer, handler, lambda: "outer after 1.1" in events, retry=SOON, middleware=middleware)
        assert events == [
            "outer before 0.1",
            "inner before 0.1",
            "handler 0.1",
            "inner failure 0.1 no",
            "outer failure 0.1 no",
            "outer before 0.2",
            "inner before 0.2",
            "handler 0.2",
            "inner after 0.2",
            "outer after 0.2",
            "outer before 1.1",
            "inner before 1.1",
            "handler 1.1",
            "inner after 1.1",
            "outer after 1.1",
        ]
        assert "trouble in a hook" in caplog.text
        assert "try 1 failed: ValueError: no" in caplog.text
        assert "try 2 took" in caplog.text

    def test_a_record_that_a_hook_refuses_fails_without_its_handler(self, broker: BrokerProcess, topic: str) -> None:
        produce(broker, topic, 4, keys=1)
        handled: list[int] = []
        failed: list[int] = []

        class Refusing(Middleware):
            def before(self, record: Record) -> None:
                if number_of(record) == 1 and record.attempt < 3:
                    raise ValueError("not like this")

            def on_failure(self, record: Record, error: BaseException) -> None:
                failed.append(number_of(record))

        with Consumer(topic, group_id=topic, server=broker.server) as consumer:
            handler = lambda record: handled.append(number_of(record))  # noqa: E731
            run_until(consumer, handler, lambda: len(handled) == 4, retry=SOON, middleware=[Refusing()])
        assert handled == [0, 1, 2, 3]
        assert failed == [1, 1]


class TestAsync:
    def test_a_handler_whose_time_is_up_is_cancelled_and_tried_again(self, broker: BrokerProcess, topic: str) -> None:
        produce(broker, topic, 20)
        finished: dict[bytes | None, list[int]] = defaultdict(list)
        failures: list[type[BaseException]] = []

        class Noting(Middleware):
            def on_failure(self, record: Record, error: BaseException) -> None:
                failures.append(type(error))

        async def handler(record: Record) -> None:
            number = number_of(record)
            if number == 3 and record.attempt == 1:
                await asyncio.sleep(WAIT)
            if number == 4 and record.attempt == 1:
                raise asyncio.CancelledError  # Something that the handler waited for was cancelled.
            if number == 6:
                for _ in range(6):
                    await asyncio.sleep(LIMIT_MS / 3_000)
                    renew()
            finished[record.key].append(number)

        async def main() -> None:
            async with AsyncConsumer(topic, group_id=topic, server=broker.server) as consumer:
                done = lambda: sum(map(len, finished.values())) >= 20  # noqa: E731
                limits = {"handler_timeout_ms": LIMIT_MS, "concurrency": 4, "middleware": [Noting()]}
                await run_async(consumer, handler, done, retry=SOON, **limits)

        asyncio.run(main())
        assert all(numbers == sorted(numbers) for numbers in finished.values())
        assert sorted(number for numbers in finished.values() for number in numbers) == list(range(20))
        assert Counter(failures) == {HandlerTimeout: 1, asyncio.CancelledError: 1}

    def test_a_handler_that_outlasts_the_drain_is_cancelled_and_its_record_goes_back_unspent(
        self, broker: BrokerProcess, topic: str
    ) -> None:
        produce(broker, topic, 3, keys=1)
        seen: list[tuple[int, int]] = []
        began: list[int] = []

        async def hangs(record: Record) -> None:
            if number_of(record) == 1:
                began.append(1)
                await asyncio.sleep(WAIT)

        async def notes(record: Record) -> None:
            seen.append((number_of(record), record.attempt))

        async def main() -> None:
            async with AsyncConsumer(topic, group_id=topic, server=broker.server) as consumer:
                await run_async(consumer, hangs, lambda: bool(began), drain_timeout_ms=50)
            async with AsyncConsumer(topic, group_id=topic, server=broker.server) as consumer:
                await run_async(consumer, notes, lambda: len(seen) == 2)

        asyncio.run(main())
        assert seen == [(1, 1), (2, 1)]
