"""The yardstick: how fast this path can be in Python on this machine when nothing is promised.

One process encodes record batches and ships them over ZeroMQ, five in flight. A second one checks the CRC, stamps the base
offset, appends to a file and remembers where each batch begins. Then the first asks for everything back, a megabyte at a
time, and decodes every record. No fsync, no groups, no error handling: what the real thing costs beside this is the price of
its promises.

    python tests/bench/yardstick.py [--records-100 N] [--records-1000 N]

Prints a line a measurement: `100 B produce 1,863,765 records/s 186 MB/s`.
"""

import argparse
import bisect
import collections
import multiprocessing
import os
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq
from aiokafka.record.default_records import DefaultRecordBatch

from logsvc_common import batch

BATCH_BYTES = 256 << 10
FETCH_BYTES = 1 << 20
IN_FLIGHT_MAX = 5
READY_BATCHES_MAX = 64
APPEND, FETCH, QUIT = b"A", b"F", b"Q"


def broker(path: str, tell_port: Connection) -> None:
    """Answer until told to quit. Positions of batches live in two parallel lists, searched by bisection."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.set_hwm(0)
    tell_port.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    base_offsets: list[int] = []
    positions: list[int] = []
    next_offset = next_position = 0
    while True:
        peer, request, *payload = socket.recv_multipart(copy=False)
        verb, argument = request.bytes[:1], request.bytes[1:]
        if verb == APPEND:
            data = payload[0].buffer
            header = batch.parse_header(data)
            batch.check_crc(data, header)
            base_offsets.append(next_offset)
            positions.append(next_position)
            next_position += os.writev(file, batch.stamp(data, header, next_offset))
            next_offset += header.last_offset_delta + 1
            socket.send_multipart([peer.bytes, b"done"])
        elif verb == FETCH:
            first = bisect.bisect_right(base_offsets, int(argument)) - 1
            begin = positions[first]
            beyond = bisect.bisect_right(positions, begin + FETCH_BYTES) - 1
            end = positions[beyond] if first < beyond < len(positions) - 1 else next_position
            socket.send_multipart([peer.bytes, os.pread(file, end - begin, begin)], copy=False)
        else:
            socket.send_multipart([peer.bytes, b"bye"])
            socket.close(linger=1_000)
            return


class Producer:
    """Encodes in the caller's thread, ships in its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ready: collections.deque[Any] = collections.deque()
        self._room = threading.Semaphore(READY_BATCHES_MAX)
        self._something = threading.Semaphore(0)
        self._closed = False
        self._builder = batch.builder(0, BATCH_BYTES)
        self._count = 0
        self._shipper = threading.Thread(target=self._ship)
        self._shipper.start()

    def send(self, value: bytes) -> None:
        timestamp_ms = int(time.time() * 1000)
        if self._builder.append(self._count, timestamp_ms, None, value, []) is None:
            self._hand_over()
            self._builder.append(0, timestamp_ms, None, value, [])
        self._count += 1

    def close(self) -> None:
        """Returns when everything is acknowledged."""
        self._hand_over()
        self._closed = True
        self._something.release()
        self._shipper.join()

    def _hand_over(self) -> None:
        self._room.acquire()
        self._ready.append(self._builder)
        self._something.release()
        self._builder, self._count = batch.builder(0, BATCH_BYTES), 0

    def _ship(self) -> None:
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.set_hwm(0)
        socket.connect(self._address)
        in_flight = 0
        while True:
            while self._ready and in_flight < IN_FLIGHT_MAX:
                socket.send_multipart([APPEND, self._ready.popleft().build()], copy=False)
                self._room.release()
                in_flight += 1
            if in_flight:
                socket.recv()
                in_flight -= 1
            elif self._closed and not self._ready:
                socket.close()
                return
            else:
                self._something.acquire(timeout=0.005)


def consume(address: str, records: int) -> float:
    """Seconds to fetch and decode `records` records; the next fetch travels while this one is decoded."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.connect(address)
    seen = value_bytes = 0
    started = time.perf_counter()
    socket.send(FETCH + b"0")
    while seen < records:
        batches = list(batch.split(socket.recv()))
        last_header = batches[-1][0]
        socket.send(FETCH + b"%d" % min(last_header.next_offset, records - 1))
        for _, data in batches:
            decoder = DefaultRecordBatch(bytes(data))
            if not decoder.validate_crc():
                raise ValueError("a batch came back damaged")
            for record in decoder:
                value_bytes += len(record.value)
                seen += 1
    seconds = time.perf_counter() - started
    socket.recv()
    socket.send(QUIT)
    socket.recv()
    socket.close()
    return seconds


def measure(size: int, records: int) -> None:
    """Produce and consume `records` values of `size` bytes, and print both rates."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.Process(target=broker, args=(str(Path(folder, "log")), there), daemon=True)
        process.start()
        address = f"tcp://127.0.0.1:{here.recv()}"
        value = os.urandom(size)
        started = time.perf_counter()
        producer = Producer(address)
        for _ in range(records):
            producer.send(value)
        producer.close()
        for what, seconds in (("produce", time.perf_counter() - started), ("consume", consume(address, records))):
            print(f"{size} B {what} {records / seconds:,.0f} records/s {records * size / seconds / 1e6:,.0f} MB/s", flush=True)
        process.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records-100", type=int, default=2_000_000)
    parser.add_argument("--records-1000", type=int, default=500_000)
    arguments = parser.parse_args()
    measure(100, arguments.records_100)
    measure(1_000, arguments.records_1000)


if __name__ == "__main__":
    main()
