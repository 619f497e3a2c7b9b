"""Who a peer is, what it may, and what it has used of that (KIP-13, KIP-219). Pure: the time is given.

A quota belongs to a client id, and all connections that greet with it share it. What a client says of itself proves nothing:
quotas keep honest clients from crowding each other out. `key_of` is the one place that decides; once there are principals,
it answers with these.

Kept small whatever peers say: of connections, the last PEERS_MAX are known, a forgotten one counts as without an id. A client's
state is forgotten when it is no different from a new one's; when CLIENTS_MAX have a state that matters, more share one.
"""

from collections import OrderedDict
from collections.abc import Mapping
from itertools import islice

from logsvc.broker.token_bucket import TokenBucket
from logsvc_common.messages import CONSUMER_BYTE_RATE, IN_FLIGHT_BYTES, PRODUCER_BYTE_RATE, QUOTA_NAMES, UNLIMITED

PEERS_MAX = 20_000
CLIENTS_MAX = 10_000
SWEEP_MAX = 100  # clients looked at when room for one more is needed
CLIENT_ID_CHARACTERS_MAX = 255
NOBODY = ""  # the id of clients that give none

Limits = Mapping[str, int]
"""Quotas by name; UNLIMITED for none."""


class ClientState:
    """What one client has used of its quotas. `produce` and `fetch` are None when that rate is not limited."""

    __slots__ = ("fetch", "in_flight_bytes", "in_flight_bytes_max", "produce")

    def __init__(self, limits: Limits, now_ms: int) -> None:
        self.produce: TokenBucket | None = None
        self.fetch: TokenBucket | None = None
        self.in_flight_bytes = 0
        self.limit(limits, now_ms)

    def limit(self, limits: Limits, now_ms: int) -> None:
        """The limits have changed; what is owed stays owed."""
        self.produce = _limited(self.produce, limits[PRODUCER_BYTE_RATE], now_ms)
        self.fetch = _limited(self.fetch, limits[CONSUMER_BYTE_RATE], now_ms)
        self.in_flight_bytes_max = limits[IN_FLIGHT_BYTES]

    def is_idle(self, now_ms: int) -> bool:
        """True when a new state would be no different."""
        buckets = (self.produce, self.fetch)
        return not self.in_flight_bytes and all(bucket is None or bucket.is_full(now_ms) for bucket in buckets)


def _limited(bucket: TokenBucket | None, rate: int, now_ms: int) -> TokenBucket | None:
    if rate == UNLIMITED:
        return None
    if bucket is None:
        return TokenBucket(rate, now_ms)
    bucket.change_rate(rate, now_ms)
    return bucket


class ClientQuotas:
    """The quotas of all clients. `active` is False while none is limited: then nothing here need be asked."""

    def __init__(self, defaults: Limits, clients: Mapping[str, Limits], *, clients_max: int = CLIENTS_MAX) -> None:
        self.defaults = {name: defaults.get(name, UNLIMITED) for name in QUOTA_NAMES}
        self._clients_max = clients_max
        self._set: dict[str, dict[str, int]] = {client_id: dict(limits) for client_id, limits in clients.items()}
        self._peers: OrderedDict[bytes, str] = OrderedDict()
        self._states: dict[str, ClientState] = {}
        self._others: ClientState | None = None
        self.active = self._any_limit()

    def _any_limit(self) -> bool:
        return any(limit != UNLIMITED for limits in (self.defaults, *self._set.values()) for limit in limits.values())

    def greeted(self, peer: bytes, client_id: str) -> None:
        """A connection says who it is. The first word counts."""
        if peer not in self._peers:
            self._peers[peer] = client_id[:CLIENT_ID_CHARACTERS_MAX]
            if len(self._peers) > PEERS_MAX:
                self._peers.popitem(last=False)

    def key_of(self, peer: bytes) -> str:
        """Whose quota the requests of this connection use."""
        client_id = self._peers.get(peer)
        if client_id is None:
            return NOBODY
        self._peers.move_to_end(peer)
        return client_id

    def state_of(self, peer: bytes, now_ms: int) -> ClientState | None:
        """What the client behind a connection has used; None when nothing limits it."""
        key = self.key_of(peer)
        state = self._states.get(key)
        return self._new_state(key, now_ms) if state is None else state

    def _new_state(self, key: str, now_ms: int) -> ClientState | None:
        limits = self.limits_of(key)
        if all(limit == UNLIMITED for limit in limits.values()):
            return None
        if len(self._states) >= self._clients_max and key not in self._set and not self._sweep(now_ms):
            if self._others is None:
                self._others = ClientState(self.defaults, now_ms)
            return self._others
        state = self._states[key] = ClientState(limits, now_ms)
        return state

    def _sweep(self, now_ms: int) -> bool:
        """Forget clients that are idle; False when none of those looked at is. The others go to the back of the line."""
        looked_at = list(islice(self._states, SWEEP_MAX))
        for key in looked_at:
            state = self._states.pop(key)
            if not state.is_idle(now_ms):
                self._states[key] = state
        return len(self._states) < self._clients_max

    def limits_of(self, client_id: str) -> dict[str, int]:
        """Every quota of a client id: what was set for it, else the default."""
        return {**self.defaults, **self._set.get(client_id, {})}

    def set(self, client_id: str, limits: Limits) -> None:
        """From now on these hold for the client id, and the defaults for what is not among them."""
        if limits:
            self._set[client_id] = dict(limits)
        else:
            self._set.pop(client_id, None)
        self.active = self._any_limit()

    def apply(self, client_id: str, now_ms: int) -> None:
        """Have a client that is at work feel what was set."""
        state = self._states.get(client_id)
        if state is not None:
            state.limit(self.limits_of(client_id), now_ms)
