"""Quotas at work: answers of a client that is over one are held back, and say how long it is to send nothing (KIP-219).

    produce   appended at once; its answer is held until the bytes are paid for, HOLD_MS_MAX at most, and tells what is left
    fetch     held the same way before anything is read, so that no memory waits with it; then answered, without records while
              more is owed. One answer brings no more than a full bucket holds (or one batch)

Our clients send nothing for as long as they are told. One that goes on all the same is held to its rate: a produce that comes
while REFUSED_FROM_MS are owed, or whose bytes do not fit its quota in flight, is refused with QuotaExceeded, which can be
retried. A peer's connection itself cannot be stopped (ZeroMQ reads for all), so its bytes still arrive.

Requests made inside the process, by the HTTP API, use no client's quota.
"""

from collections.abc import Callable
from functools import partial

from logsvc.broker.client_quotas import CLIENT_ID_CHARACTERS_MAX, ClientQuotas, ClientState
from logsvc.broker.exchange import Exchange
from logsvc.broker.parked import Parked
from logsvc.broker.token_bucket import TokenBucket
from logsvc.storage.quota_store import QuotaStore
from logsvc_common.errors import InvalidConfig, QuotaExceeded
from logsvc_common.messages import (
    QUOTA_NAMES,
    UNLIMITED,
    AlterQuota,
    AlterQuotaReply,
    Api,
    ClientQuota,
    Fetch,
    FetchReply,
    ListQuotas,
    ListQuotasReply,
    Produce,
    ProduceReply,
    ProduceResult,
)

HOLD_MS_MAX = 1_000  # far below the time after which a client takes its connection for broken
REFUSED_FROM_MS = 10_000
IN_FLIGHT_WAIT_MS = 20  # about what an fsync takes, when bytes in flight are the quota that is used up
HELD_MAX = 10_000  # answers held at one time; more go out at once, and still say how long to wait
CLIENTS_SET_MAX = 10_000  # client ids that may have quotas of their own

ReplyToProduce = Callable[[ProduceReply], None]


class Throttle:
    """`active` is False while no client is limited: then nothing else here need be called on a request's way.

    `count(api, ms)` is told how long each request over a quota is to wait; `arm` is called when `next_deadline_ms` has changed.
    """

    def __init__(
        self,
        quotas: ClientQuotas,
        store: QuotaStore,
        monotonic_ms: Callable[[], int],
        *,
        count: Callable[[Api, int], None],
        arm: Callable[[], None],
    ) -> None:
        self._quotas = quotas
        self._store = store
        self._monotonic_ms = monotonic_ms
        self._count = count
        self._arm = arm
        self._held: Parked[None, Callable[[], None]] = Parked(HELD_MAX)
        self._stopping = False
        self.active = quotas.active

    def greeted(self, peer: bytes, client_id: str) -> None:
        """A connection says whose it is."""
        self._quotas.greeted(peer, client_id)

    # Produce

    def admit(self, exchange: Exchange[Produce]) -> ReplyToProduce | None:
        """Count a produce. Returns how to answer it; None when it has been refused."""
        now_ms = self._monotonic_ms()
        client = self._quotas.state_of(exchange.peer, now_ms) if exchange.peer else None
        if client is None:
            return exchange.reply
        size = sum(len(batch) for batch in exchange.payload)
        owed_ms = 0 if client.produce is None else client.produce.wait_ms(now_ms)
        # What is larger than the quota itself must still be able to pass, alone.
        crowded = client.in_flight_bytes and 0 <= client.in_flight_bytes_max < client.in_flight_bytes + size
        if owed_ms > REFUSED_FROM_MS or crowded:
            self._refuse(exchange, client, owed_ms)
            return None
        if client.produce is not None:
            client.produce.take(size, now_ms)
        client.in_flight_bytes += size
        return partial(self._answer_produce, exchange, client, size)

    def _answer_produce(self, exchange: Exchange[Produce], client: ClientState, size: int, reply: ProduceReply) -> None:
        client.in_flight_bytes -= size
        self._hold_produce(exchange, client.produce, reply, 0)

    def _refuse(self, exchange: Exchange[Produce], client: ClientState, owed_ms: int) -> None:
        if owed_ms > REFUSED_FROM_MS:
            why = f"this client is {owed_ms} ms ahead of its producer_byte_rate"
        else:
            why = f"{client.in_flight_bytes} bytes of this client wait for an fsync, its in_flight_bytes allow no more"
        refused = ProduceResult(error_code=QuotaExceeded.code, error_message=why)
        reply = ProduceReply([refused] * len(exchange.body.partitions))
        self._hold_produce(exchange, client.produce, reply, IN_FLIGHT_WAIT_MS)

    def _hold_produce(
        self, exchange: Exchange[Produce], bucket: TokenBucket | None, reply: ProduceReply, least_ms: int
    ) -> None:
        exchange.payload = ()  # the batches are in the log, or refused: they need not wait with the answer

        def go() -> None:
            left_ms = 0 if bucket is None else bucket.wait_ms(self._monotonic_ms())
            exchange.reply(ProduceReply(reply.results, left_ms))

        owed_ms = 0 if bucket is None else bucket.wait_ms(self._monotonic_ms())
        self._hold(exchange.api, max(owed_ms, least_ms), go)

    # Fetch

    def holds_fetch(self, exchange: Exchange[Fetch], go_on: Callable[[Exchange[Fetch]], None]) -> bool:
        """True when the client owes bytes: then it is answered later, by `go_on` when all is paid."""
        now_ms = self._monotonic_ms()
        bucket = self._fetch_bucket(exchange, now_ms)
        owed_ms = 0 if bucket is None else bucket.wait_ms(now_ms)
        if bucket is None or not owed_ms:
            return False

        def go() -> None:
            left_ms = bucket.wait_ms(self._monotonic_ms())
            if left_ms:
                exchange.reply(FetchReply([], left_ms))
            else:
                go_on(exchange)

        self._hold(exchange.api, owed_ms, go)
        return True

    def fetch_bytes_max(self, exchange: Exchange[Fetch], bytes_max: int) -> int:
        """How much one answer may bring: at most `bytes_max`."""
        bucket = self._fetch_bucket(exchange, self._monotonic_ms())
        return bytes_max if bucket is None else min(bytes_max, bucket.burst_bytes)

    def fetched(self, exchange: Exchange[Fetch], size: int) -> int:
        """Count what an answer brings. Returns for how many ms the client is to send nothing."""
        now_ms = self._monotonic_ms()
        bucket = self._fetch_bucket(exchange, now_ms)
        if bucket is None:
            return 0
        bucket.take(size, now_ms)
        owed_ms = bucket.wait_ms(now_ms)
        if owed_ms:
            self._count(exchange.api, owed_ms)
        return owed_ms

    def _fetch_bucket(self, exchange: Exchange[Fetch], now_ms: int) -> TokenBucket | None:
        client = self._quotas.state_of(exchange.peer, now_ms) if exchange.peer else None
        return None if client is None else client.fetch

    # Holding

    def _hold(self, api: Api, owed_ms: int, go: Callable[[], None]) -> None:
        if owed_ms:
            self._count(api, owed_ms)
            deadline_ms = self._monotonic_ms() + min(owed_ms, HOLD_MS_MAX)
            if not self._stopping and self._held.add(go, (), deadline_ms=deadline_ms):
                self._arm()
                return
        go()

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `expire` is useful."""
        return self._held.next_deadline_ms()

    def expire(self, now_ms: int) -> None:
        """Let go of what has been held long enough."""
        for go in self._held.expire(now_ms):
            go()

    def stop(self) -> None:
        """Answer all; from now on nothing is held."""
        self._stopping = True
        for go in self._held.drain():
            go()

    # Setting quotas

    def alter(self, exchange: Exchange[AlterQuota]) -> None:
        body = exchange.body
        client_id = _checked_id(body.client_id)
        known = self._store.clients
        wanted = {**known.get(client_id, {}), **{name: _checked(name, limit) for name, limit in body.quotas.items()}}
        limits = {name: limit for name, limit in wanted.items() if limit is not None}
        if client_id not in known and limits and len(known) >= CLIENTS_SET_MAX:
            raise InvalidConfig(f"{len(known)} client ids have quotas, there is no room for more; `logsvc quota remove` some")
        if limits != known.get(client_id, {}):
            self._store.set(client_id, limits)
            self._quotas.set(client_id, limits)
            self._quotas.apply(client_id, self._monotonic_ms())
            self.active = self._quotas.active
        exchange.reply(AlterQuotaReply(ClientQuota(client_id, limits)))

    def list(self, exchange: Exchange[ListQuotas]) -> None:
        clients = [ClientQuota(client_id, limits) for client_id, limits in sorted(self._store.clients.items())]
        exchange.reply(ListQuotasReply(self._quotas.defaults, clients))


def _checked_id(client_id: str) -> str:
    if len(client_id) > CLIENT_ID_CHARACTERS_MAX or not (client_id.isprintable() or not client_id):
        raise InvalidConfig(f"a client id has up to {CLIENT_ID_CHARACTERS_MAX} printable characters, not {client_id[:100]!r}")
    return client_id


def _checked(name: str, limit: int | None) -> int | None:
    if name not in QUOTA_NAMES:
        raise InvalidConfig(f"no quota is called {name[:100]!r}; there are {', '.join(QUOTA_NAMES)}")
    if limit is not None and limit != UNLIMITED and limit < 1:
        raise InvalidConfig(f"{name} is {limit}; it is 1 at least, or -1 for no limit")
    return limit
