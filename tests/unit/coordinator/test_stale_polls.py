"""Polls for retries that nobody waits for any more: kept by the network, or left waiting on a connection that broke."""

from tests.unit.coordinator.harness import Harness, failure


def failing() -> tuple[Harness, int]:
    """Member `a` has polled up to number 7, and record 3, which has failed, is due."""
    broker = Harness(partitions=1)
    epoch = broker.join("a").member_epoch
    broker.beat("a", epoch, [0])
    for poll in range(1, 8):
        assert due(broker, epoch, poll) == []
    broker.commit(4, member="a", epoch=epoch, failed=[failure(3)])
    broker.pass_time(1_000)
    return broker, epoch


def due(broker: Harness, epoch: int, poll: int) -> list[int]:
    return [record.offset for record in broker.retries(member="a", epoch=epoch, poll=poll)]


def test_an_old_poll_is_given_nothing_and_the_newest_gets_the_record() -> None:
    broker, epoch = failing()
    assert due(broker, epoch, 2) == []
    assert due(broker, epoch, 7) == [3]


def test_the_newest_poll_sent_again_is_given_the_same_again() -> None:
    broker, epoch = failing()
    first = due(broker, epoch, 8)
    assert first
    assert due(broker, epoch, 8) == first


def test_a_member_that_joins_anew_counts_from_one() -> None:
    broker, _epoch = failing()
    broker.leave("a")
    epoch = broker.join("a").member_epoch
    broker.beat("a", epoch, [0])
    assert due(broker, epoch, 1) == [3]


def test_after_a_restart_of_the_broker_the_first_poll_counts_whatever_its_number() -> None:
    broker, epoch = failing()
    broker.restart()
    assert due(broker, epoch, 7) == [3]
