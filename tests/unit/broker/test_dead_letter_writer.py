"""Dead letters written one after another: exactly one for each failure, whatever was removed between them."""

from collections.abc import Callable

from logsvc.broker.appender import Appender
from logsvc.broker.dead_letters import DeadLetterWriter
from logsvc.broker.group_commit import GroupCommit
from logsvc.broker.record_reader import RecordReader
from logsvc.coordinator.deadletter import write_effect
from logsvc.coordinator.events import WriteDeadLetter
from logsvc.coordinator.state_log import Intent
from logsvc.storage.log_directory import LogDirectory
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import RecordData, encode, parse_header
from logsvc_common.errors import LogsvcError

NOW_MS = 1_000
LETTERS = "dlq.t.g"


def at_once(call: Callable[[], None]) -> None:
    call()


class Writer:
    """A writer whose syncs happen at once, and a source topic of a few records."""

    def __init__(self) -> None:
        self.logs = LogDirectory.open(SimulatedDisk(), "data", now_ms=NOW_MS, reserve_bytes=0)
        self.logs.create_topic("t", 1, {})
        log = self.logs.partition("t", 0)
        batch = encode([RecordData(b"v%d" % offset, b"k", NOW_MS) for offset in range(6)])
        log.append(batch, parse_header(batch), NOW_MS)
        log.sync()
        commit = GroupCommit(at_once, at_once, at_once, lambda _: None, lambda: 0.0)
        appender = Appender(commit, lambda *_: None, lambda *_: None, lambda _: None)
        self._writer = DeadLetterWriter(self.logs, appender, RecordReader(), lambda: NOW_MS, lambda: None)

    def effect(self, offset: int) -> WriteDeadLetter:
        """As the coordinator asks for it: the letter is looked for from where the partition ends now."""
        topic = self.logs.topics.get(LETTERS)
        search_from = 0 if topic is None else topic.partitions[0].end_offset
        intent = Intent(LETTERS, 1, search_from, 1, "bad", "ValueError", "", NOW_MS, "exhausted", 0, -1)
        return write_effect("g", "t", 0, offset, intent)

    def write(self, effect: WriteDeadLetter) -> tuple[int, LogsvcError | None]:
        answers: list[tuple[int, LogsvcError | None]] = []
        self._writer.write(effect, lambda at, error: answers.append((at, error)))
        assert len(answers) == 1
        return answers[0]

    def purge(self) -> None:
        log = self.logs.partition(LETTERS, 0)
        log.trim(log.high_watermark)


def test_a_letter_after_a_purge_is_written_as_any_other() -> None:
    writer = Writer()
    assert writer.write(writer.effect(0)) == (0, None)
    writer.purge()
    assert writer.write(writer.effect(1)) == (1, None)
    assert writer.write(writer.effect(2)) == (2, None)


def test_a_letter_asked_for_twice_is_written_once() -> None:
    writer = Writer()
    effects = [writer.effect(0), writer.effect(1)]
    first = [writer.write(effect) for effect in effects]
    assert [writer.write(effect) for effect in effects] == first == [(0, None), (1, None)]
    assert writer.logs.partition(LETTERS, 0).end_offset == 2


def test_letters_of_a_topic_made_anew_are_not_taken_for_those_of_the_old_one() -> None:
    writer = Writer()
    effect = writer.effect(0)
    assert writer.write(effect) == (0, None)
    writer.logs.delete_topic(LETTERS)
    assert writer.write(effect) == (0, None)
    assert writer.logs.partition(LETTERS, 0).end_offset == 1
