"""Who shares a quota with whom, and what is remembered of whom."""

import itertools

from logsvc.broker import client_quotas
from logsvc.broker.client_quotas import PEERS_MAX, ClientQuotas
from logsvc_common.messages import CONSUMER_BYTE_RATE, IN_FLIGHT_BYTES, PRODUCER_BYTE_RATE, UNLIMITED

RATE = {PRODUCER_BYTE_RATE: 1_000}


def test_nothing_is_asked_of_anybody_while_no_quota_is_set() -> None:
    quotas = ClientQuotas({}, {})
    quotas.greeted(b"p", "me")
    assert not quotas.active
    assert quotas.state_of(b"p", 0) is None


def test_connections_with_one_client_id_share_its_quota_and_others_have_their_own() -> None:
    quotas = ClientQuotas(RATE, {})
    for peer, client_id in ((b"1", "a"), (b"2", "a"), (b"3", "b")):
        quotas.greeted(peer, client_id)
    assert quotas.state_of(b"1", 0) is quotas.state_of(b"2", 0)
    assert quotas.state_of(b"3", 0) is not quotas.state_of(b"1", 0)
    # Those that did not greet, and those without an id, are one client.
    quotas.greeted(b"4", "")
    assert quotas.state_of(b"4", 0) is quotas.state_of(b"5", 0)


def test_what_is_set_for_a_client_id_goes_before_the_default() -> None:
    quotas = ClientQuotas(RATE, {"fast": {PRODUCER_BYTE_RATE: UNLIMITED}})
    quotas.greeted(b"f", "fast")
    assert quotas.state_of(b"f", 0) is None
    assert quotas.limits_of("fast") == {PRODUCER_BYTE_RATE: -1, CONSUMER_BYTE_RATE: -1, IN_FLIGHT_BYTES: -1}
    assert quotas.limits_of("other")[PRODUCER_BYTE_RATE] == 1_000


def test_a_client_cannot_shed_its_quota_by_greeting_again() -> None:
    quotas = ClientQuotas({}, {"slow": RATE})
    quotas.greeted(b"p", "slow")
    quotas.greeted(b"p", "free")
    assert quotas.key_of(b"p") == "slow"


def test_a_quota_that_is_set_holds_at_once_and_keeps_what_is_owed() -> None:
    quotas = ClientQuotas({}, {"me": RATE})
    quotas.greeted(b"p", "me")
    state = quotas.state_of(b"p", 0)
    assert state is not None
    assert state.produce is not None
    state.produce.take(5_000, 0)
    assert state.produce.wait_ms(0) == 4_000
    quotas.set("me", {PRODUCER_BYTE_RATE: 2_000})
    quotas.apply("me", 0)
    assert quotas.state_of(b"p", 0) is state
    assert state.produce.wait_ms(0) == 2_000
    quotas.set("me", {})
    quotas.apply("me", 0)
    assert not quotas.active
    assert state.produce is None


def test_a_thousand_ids_cost_no_more_than_the_limit_and_a_debt_is_not_forgotten() -> None:
    quotas = ClientQuotas(RATE, {}, clients_max=50)
    for number in range(50):
        quotas.greeted(b"busy%d" % number, f"busy{number}")
        state = quotas.state_of(b"busy%d" % number, 0)
        assert state is not None
        assert state.produce is not None
        state.produce.take(10_000, 0)
    # While all owe something, newcomers share one state,
    for number in range(1_000):
        quotas.greeted(b"new%d" % number, f"new{number}")
    assert len({id(quotas.state_of(b"new%d" % number, 0)) for number in range(1_000)}) == 1
    again = quotas.state_of(b"busy7", 0)
    assert again is not None
    assert again.produce is not None
    assert again.produce.wait_ms(0) == 9_000
    # and once debts are paid, their room is free for newcomers.
    states = [quotas.state_of(b"new%d" % number, 60_000) for number in range(30)]
    assert len({id(state) for state in states}) == 30
    assert len(quotas._states) <= 50


def test_connections_without_end_are_forgotten_oldest_first() -> None:
    quotas = ClientQuotas(RATE, {})
    quotas.greeted(b"used", "used")
    for number in range(PEERS_MAX - 1):
        quotas.greeted(b"%d" % number, "x")
    assert quotas.key_of(b"used") == "used"  # it is the youngest now
    for number in itertools.islice(itertools.count(PEERS_MAX), 10):
        quotas.greeted(b"%d" % number, "x")
    assert quotas.key_of(b"used") == "used"
    assert quotas.key_of(b"0") == client_quotas.NOBODY
    assert len(quotas._peers) == PEERS_MAX


def test_a_long_client_id_is_cut() -> None:
    quotas = ClientQuotas({}, {})
    quotas.greeted(b"p", "x" * 1_000_000)
    assert len(quotas.key_of(b"p")) == client_quotas.CLIENT_ID_CHARACTERS_MAX
