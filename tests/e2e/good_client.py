"""A good client, as a program: a producer that sends one record after another and times each acknowledgement.

Usage: `python -m tests.e2e.good_client SERVER`. Says `begun` once it is served, and what it felt, as JSON, when stdin ends.
"""

import sys
import threading
import time
from typing import NamedTuple

import msgspec

from logsvc_client import Producer
from tests.e2e.unharmed import GOOD_TOPIC

PAUSE_S = 0.005  # between sends
TIMEOUT_S = 30.0


class Felt(NamedTuple):
    """How long it took from `send` to the durable ack."""

    acks: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


def felt(taken_ms: list[float]) -> Felt:
    taken = sorted(taken_ms)
    return Felt(len(taken), *(round(taken[min(len(taken) - 1, len(taken) * part // 100)], 1) for part in (50, 99, 100)))


def main(server: str) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    taken_ms = []
    with Producer(server, client_id="good", linger_ms=0) as producer:
        producer.send(GOOD_TOPIC, b"first").result(timeout=TIMEOUT_S)
        print("begun", flush=True)
        while not ended.is_set() or not taken_ms:
            started = time.monotonic()
            producer.send(GOOD_TOPIC, b"good").result(timeout=TIMEOUT_S)
            taken_ms.append((time.monotonic() - started) * 1_000)
            time.sleep(PAUSE_S)
    print(msgspec.json.encode(felt(taken_ms)).decode())


if __name__ == "__main__":
    main(sys.argv[1])
