"""At most five batches of a partition between the oldest unacknowledged one and the newest: what the broker remembers.

The broker answers a request when every partition in it is durable, so a later request for fewer partitions may be answered
first. If its acknowledgement made room for a sixth batch, then the broker, which remembers five, would no longer know
the first: sent again after a crash it would be refused for its sequence, and written twice under the next epoch.
"""

from tests.unit.client.test_accumulator import accumulator, confirm, sealed


def test_an_acknowledgement_out_of_turn_makes_no_room_before_the_oldest_batch_is_acknowledged() -> None:
    # Given five batches in flight and two more that wait
    made = accumulator()
    confirm(made)
    batches = sealed(made, 7)
    flying = [batch for request in made.drain(0) for batch in request]
    assert flying == batches[:5]
    # When the second to fifth are acknowledged before the first
    for offset, batch in enumerate(batches[1:5], 2):
        made.acked(batch, offset)
    # Then the sixth waits: the broker, which remembers five, must not forget the first.
    assert made.drain(0) == []
    # When the first is acknowledged too, then both go.
    made.acked(batches[0], 1)
    assert [batch for request in made.drain(0) for batch in request] == batches[5:]


def test_the_window_moves_with_the_oldest_batch() -> None:
    made = accumulator()
    confirm(made)
    batches = sealed(made, 9)
    assert [batch for request in made.drain(0) for batch in request] == batches[:5]
    made.acked(batches[0], 1)
    made.acked(batches[2], 3)
    # One place for the first; none for the third while the second is in flight.
    assert [batch for request in made.drain(0) for batch in request] == batches[5:6]


def test_a_batch_lost_with_its_connection_goes_before_any_new_one() -> None:
    made = accumulator()
    confirm(made)
    batches = sealed(made, 7)
    made.drain(0)
    for batch in batches[1:5]:
        made.acked(batch, 1)
    made.lost(batches[0])
    # The first again, and then as many as the broker remembers beside it: the sixth would be the sixth.
    assert [batch for request in made.drain(0) for batch in request] == batches[:1]
    made.acked(batches[0], 0)
    assert [batch for request in made.drain(0) for batch in request] == batches[5:]
