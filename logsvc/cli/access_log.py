"""Web server access logs for the demo: the pattern of a sound line, and a small log to show it on.

The pattern is the Common Log Format as NCSA httpd wrote it (the request may lack its protocol, as HTTP/0.9 requests do).
"""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

LINE = re.compile(rb'^(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+)( HTTP/[\d.]+)?" (\d{3}) (\d+|-)$')
HOST = re.compile(rb"^(\S{1,255})(?!\S)")  # no host name is longer (RFC 1035)

_PAGES = (
    "/",
    "/index.html",
    "/images/logo.gif",
    "/docs/start.html",
    "/docs/faq.html",
    "/search?q=log",
    "/about.html",
    "/robots.txt",
)


class Request(NamedTuple):
    """One parsed line. `sent_bytes` is 0 where the log says `-`."""

    host: str
    time: str
    method: str
    path: str
    status: int
    sent_bytes: int


def parse(line: bytes) -> Request:
    """The request that `line` logs. Raises ValueError when it is not a line of such a log."""
    match = LINE.match(line)
    if match is None:
        raise ValueError("the line does not match the access log's pattern")
    host, time, method, path = (match.group(field).decode("utf-8", "replace") for field in range(1, 5))
    sent = match.group(7)
    return Request(host, time, method, path, int(match.group(6)), 0 if sent == b"-" else int(sent))


def host_of(line: bytes) -> bytes | None:
    """The first field, by which lines keep their order; None for a line that has none, or one too long to be a host's name."""
    match = HOST.match(line)
    return match.group(1) if match else None


def sample_lines(count: int = 1_000, broken_every: int = 25, seed: int = 1995) -> Iterator[bytes]:
    """`count` lines of a made-up log, every `broken_every`th of them cut short as by a crash of the writer."""
    chance = random.Random(seed)
    hosts = [f"host-{number}.example.net" for number in range(40)]
    for number in range(count):
        second = number // 2
        time = f"01/Aug/1995:{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} -0400"
        status = chance.choices((200, 304, 302, 404), (85, 10, 4, 1))[0]
        size = chance.randrange(100, 60_000) if status == 200 else 0
        line = f'{chance.choice(hosts)} - - [{time}] "GET {chance.choice(_PAGES)} HTTP/1.0" {status} {size}'
        if number % broken_every == broken_every - 1:
            # Inside the request: what is left never matches.
            line = line[: line.index("HTTP/1.0") - chance.randrange(1, 5)]
        yield line.encode()
