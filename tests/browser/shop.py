"""A small shop at work, for pictures: orders and payments come in, one group keeps up, one falls behind, one has trouble.

It is as long as it is told to be, because the console shows what happened and not what somebody made up.
"""

import json
import linecache
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from logsvc_client import Admin, Consumer, Producer, Record, RetryPolicy

ORDERS, PAYMENTS = "orders", "payments"
ORDERS_PER_S = 80
RETRY = RetryPolicy(max_attempts=3, initial_ms=400, max_ms=3_000)
JOIN_SECONDS = 30.0
LOOK_MS = 200
SEED = 7

# Its own file as far as a stack trace can tell, so that the trace reads as one of a user's would.
WORKER_FILE = "payments/worker.py"
WORKER = """\
class CardDeclined(Exception):
    pass


class GatewayTimeout(Exception):
    pass


def capture(payment):
    if payment["amount"] % 97 == 0:
        raise CardDeclined(f"card of customer {payment['customer']} was declined: insufficient funds")
    if payment["amount"] % 211 == 0:
        raise GatewayTimeout("the gateway did not answer within 2000 ms")


def work(consumer, stop, parse):
    while not stop.is_set():
        for record in consumer.poll(200):
            try:
                capture(parse(record.value))
            except Exception as error:
                consumer.fail(record, error)
        consumer.commit()
"""


def _worker() -> Callable[..., None]:
    linecache.cache[WORKER_FILE] = (len(WORKER), None, WORKER.splitlines(keepends=True), WORKER_FILE)
    names: dict[str, Any] = {"__name__": "payments.worker"}
    exec(compile(WORKER, WORKER_FILE, "exec"), names)
    work: Callable[..., None] = names["work"]
    return work


@contextmanager
def shop(server: str, seconds: float) -> Iterator[None]:
    """The shop while the block runs. In the last quarter of `seconds` billing gets slow and falls behind."""
    with Admin(server) as admin:
        admin.create_topic(ORDERS, partitions=6)
        admin.create_topic(PAYMENTS, partitions=3)
    stop = threading.Event()
    started = time.monotonic()

    def age() -> float:
        return time.monotonic() - started

    def bill(record: Record) -> None:
        time.sleep(0.012 if age() < 0.75 * seconds else 0.07)

    with ExitStack() as stack:
        threads = [threading.Thread(target=_sell, args=(server, stop, age), name="shop")]
        runners: list[Consumer] = []
        for group, count, handle in (("billing", 3, bill), ("search-index", 2, lambda record: None)):
            for number in range(1, count + 1):
                consumer = stack.enter_context(Consumer(ORDERS, group_id=group, server=server, client_id=f"{group}-{number}"))
                runners.append(consumer)
                threads.append(threading.Thread(target=consumer.run, args=(handle,), kwargs={"retry": RETRY}))
        payments = stack.enter_context(
            Consumer(PAYMENTS, group_id="payments", server=server, client_id="payments-1", retry=RETRY)
        )
        threads.append(threading.Thread(target=_worker(), args=(payments, stop, json.loads)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for consumer in runners:
                consumer.stop()
            for thread in threads:
                thread.join(JOIN_SECONDS)


def _sell(server: str, stop: threading.Event, age: Callable[[], float]) -> None:
    chance = random.Random(SEED)
    number = 100_000
    with Producer(server, client_id="shop") as producer:
        while not stop.wait(LOOK_MS / 1000):
            wanted = ORDERS_PER_S * (1 + 0.35 * math.sin(age() / 45)) * chance.uniform(0.85, 1.15) * LOOK_MS / 1000
            for _ in range(round(wanted)):
                number += 1
                customer = f"customer-{chance.randrange(900)}"
                items = [{"sku": f"A-{chance.randrange(400)}", "quantity": chance.randrange(1, 4)} for _ in range(2)]
                order = {"order": number, "customer": customer, "total": chance.randrange(500, 90_000) / 100, "items": items}
                trace = {"trace": f"{chance.getrandbits(64):016x}".encode(), "content-type": b"application/json"}
                producer.send(ORDERS, json.dumps(order).encode(), key=customer.encode(), headers=trace)
                if number % 3 == 0:
                    payment = {"payment": number, "customer": customer, "amount": chance.randrange(1, 9_000)}
                    producer.send(PAYMENTS, json.dumps(payment).encode(), key=customer.encode(), headers=trace)
