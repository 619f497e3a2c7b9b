"""A record that is due again and has been removed meanwhile: it fails by itself, and those of its key wait for that."""

from logsvc_client.kept import KeptRecords
from logsvc_common.messages import FetchRetries
from tests.property.client_world import BATCHES, Answer, World


def test_the_next_of_its_key_waits_until_a_record_that_is_gone_has_had_its_outcome() -> None:
    # Given a failed record, later ones of its key parked behind it, and none of them kept
    world = World("key", one_by_one=True, fails={(0, 0): 1, (1, 0): 1})
    world.engine.kept = KeptRecords(bytes_max=0)
    whole = world.broker._retries

    def without_the_first_batch(request: FetchRetries, now_ms: int) -> Answer:
        reply, payload = whole(request, now_ms)
        return reply, [bytes(frame).replace(BATCHES[0], b"") for frame in payload]

    # When retention has removed it, and not the others
    world.broker._retries = without_the_first_batch  # type: ignore[method-assign]
    world.settle()
    # Then it has ended in the dead letters, and what came after it was handled later (the world looks at the order)
    assert sorted(world.broker.dead_letters) == [(0, 0), (1, 0)]
    assert {(0, 4), (1, 4)} <= set(world.handled)
