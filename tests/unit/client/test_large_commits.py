"""Thousands of failures between two commits: each commit is one the broker takes, and none passes a failure it leaves out."""

from logsvc_client.commit_size import COMMIT_CHARACTERS_MAX
from logsvc_client.commits import Commits
from logsvc_client.progress import UNTOLD_FAILURES_MAX, PartitionProgress
from logsvc_client.records import Record, TopicPartition
from logsvc_common.frames import HEADER_FRAME_BYTES_MAX, encode_request
from logsvc_common.messages import Commit
from tests.property.client_world import World
from tests.unit.client.test_commits import POLICY, membership, request, well
from tests.unit.client.test_lost_membership import exchange

RECORDS = 3_000
TRACE = "ü€" * 4_000


def failing(number: int = 0) -> PartitionProgress:
    """Every second record has failed, with a long stack trace; the others were handled."""
    progress = PartitionProgress(TopicPartition("t", number))
    progress.begin(0)
    for offset in range(0, RECORDS, 2):
        progress.fail(Record("t", number, offset, 0, None, b"value"), "broken", "app.Broken", TRACE)
    progress.advance(RECORDS)
    return progress


def commits_until_settled(commits: Commits, *partitions: PartitionProgress) -> list[Commit]:
    sent = []
    while commits.begin(partitions, POLICY):
        sent.append(request(commits))
        assert commits.answered(sent[-1], well(sent[-1]), 0) == []
        assert len(sent) < 10 * RECORDS
    return sent


def test_no_commit_is_larger_than_a_broker_takes() -> None:
    sent = commits_until_settled(Commits("g", membership()), failing(0), failing(1))
    assert len(sent) > 1
    assert max(len(encode_request(1, commit)[0]) for commit in sent) < HEADER_FRAME_BYTES_MAX
    texts = RECORDS * len(TRACE)
    assert len(sent) < 3 * texts / COMMIT_CHARACTERS_MAX, "few are needed"


def test_none_passes_a_failure_that_is_not_told_and_each_is_told_once() -> None:
    sent = commits_until_settled(Commits("g", membership()), failing())
    told: list[int] = []
    committed = 0
    for commit in sent:
        (part,) = commit.partitions
        told += [failure.offset for failure in part.failed]
        committed = max(committed, part.offset)
        assert set(range(0, committed, 2)) <= set(told)
    assert sorted(told) == list(range(0, RECORDS, 2))
    assert committed == RECORDS


def test_partitions_take_turns() -> None:
    commits, partitions = Commits("g", membership()), [failing(number) for number in range(3)]
    first = []
    for _ in range(3):
        assert commits.begin(partitions, POLICY)
        sent = request(commits)
        first.append(sent.partitions[0].partition)
        commits.answered(sent, well(sent), 0)
    assert sorted(first) == [0, 1, 2]


def test_whoever_waits_for_a_commit_waits_for_all_of_it() -> None:
    world = World("none", one_by_one=True, fails={})
    for _ in range(5):
        exchange(world)
        world.handout.take(0, one_by_one=True)
    progress = next(iter(world.engine.progress.values()))
    with world.engine.lock:
        for offset in range(12):
            record = Record(*progress.tp, offset, 0, None, b"")
            progress.fail(record, "broken", "app.Broken", "x" * (COMMIT_CHARACTERS_MAX // 4))
        told = world.engine.commit()
    while not told.done():
        world.now_ms += 1
        world.step()
        world.arrive()
        world.answer(0)
    assert told.result(0) is None
    assert not progress.urgent


def test_nothing_new_is_read_while_the_broker_has_not_heard_of_many_failures() -> None:
    world = World("none", one_by_one=True, fails={})
    for _ in range(5):
        exchange(world)
        world.handout.take(0, one_by_one=True)
    tp, progress = next(iter(world.engine.progress.items()))
    for offset in range(UNTOLD_FAILURES_MAX):
        assert not world.engine.fetcher.partitions[tp].held
        world.handout.fail(Record(*tp, offset, 0, None, b""), "broken")
    assert world.engine.fetcher.partitions[tp].held
    with world.engine.lock:
        for failure in list(progress._failed):  # as when the next commit has taken them along
            del progress._failed[failure]
        world.engine.update_held(tp)
    assert not world.engine.fetcher.partitions[tp].held
