"""The checker of what became of a group's records: a good run passes, and each way of spoiling it is caught under its name."""

from collections.abc import Sequence

import pytest

from tests.history.groups import GONE, DeadLetter, Event, Named, Reset, Standing, Try, group_anomalies
from tests.history.log import Anomaly, Found, Place, counted, trim_anomalies

BAD, FLAKY = 4, 2  # record 4 always fails, record 2 fails once
KEYS = (b"a", b"b")


def tried(offset: int, attempt: int, outcome: str, member: str = "m") -> list[Event]:
    """A handler is given a record, and is done with it."""
    given = Try(member, Place(0, offset), 100 + offset, KEYS[offset % 2], attempt, None)
    return [given, given._replace(outcome=outcome)]


class Run:
    """Ten records of two keys in one partition, read by one member; three attempts."""

    def __init__(self) -> None:
        self.log = {0: [Found(100 + offset, KEYS[offset % 2], offset) for offset in range(10)]}
        self.events: list[Event] = []
        for offset in (0, 1):
            self.events += tried(offset, 1, "ok")
        self.events += tried(FLAKY, 1, "failed") + tried(FLAKY, 2, "ok")
        self.events += tried(3, 1, "ok")
        for attempt in (1, 2, 3):
            self.events += tried(BAD, attempt, "failed")
        for offset in range(5, 10):
            self.events += tried(offset, 1, "ok")
        self.letters = [DeadLetter(Place(0, BAD), 100 + BAD, 3, 0)]
        self.redrives = 0
        self.trimmed: dict[int, int] = {}

    def found(self, *, keyed: bool = True) -> list[Anomaly]:
        return group_anomalies(
            self.events, self.letters, self.log, attempts_max=3, keyed=keyed, redrives=self.redrives, trimmed=self.trimmed
        )

    def kinds(self) -> set[str]:
        return set(counted(self.found()))

    def without(self, offset: int, attempt: int) -> Sequence[Event]:
        """The events but one try."""
        return [e for e in self.events if not (isinstance(e, Try) and (e.place.offset, e.attempt) == (offset, attempt))]


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_good_run_has_no_anomaly(run: Run) -> None:
    assert run.found() == []


def test_a_record_handled_again_is_no_anomaly(run: Run) -> None:
    run.events += tried(3, 1, "ok", "another") + tried(5, 1, "ok", "another")
    assert run.found() == []


def test_a_record_that_nobody_handled_is_unseen_at_any_place() -> None:
    for offset in (0, 1, 3, 5, 9):
        run = Run()
        run.events = list(run.without(offset, 1))
        assert "unseen" in run.kinds()


def test_a_record_that_failed_and_was_forgotten_is_unseen(run: Run) -> None:
    run.letters.clear()
    assert "unseen" in run.kinds()


def test_what_was_trimmed_need_not_be_seen(run: Run) -> None:
    run.events = list(run.without(0, 1))
    run.trimmed = {0: 1}
    assert run.found() == []


def test_an_attempt_that_nobody_made_is_overspent(run: Run) -> None:
    run.events = list(run.without(BAD, 2))
    assert "attempt-overspent" in run.kinds()


def test_a_letter_of_more_attempts_than_were_made_is_overspent(run: Run) -> None:
    run.events = list(run.without(BAD, 3))
    assert run.kinds() == {"attempt-overspent", "key-order-broken"}  # and so those behind it came too early


def test_an_attempt_beyond_the_policy_is_overspent(run: Run) -> None:
    run.events += tried(BAD, 4, "failed")
    assert run.kinds() == {"attempt-overspent"}


def test_an_attempt_may_be_spent_by_a_death_that_the_broker_was_told_to_expect(run: Run) -> None:
    at = run.events.index(tried(BAD, 2, "failed")[0])
    run.events = list(run.without(BAD, 2))
    assert "attempt-overspent" in run.kinds()
    run.events.insert(at, Named("died", Place(0, BAD)))
    assert run.found() == []


def test_a_second_letter_of_one_failure_is_caught(run: Run) -> None:
    run.letters.append(run.letters[0])
    run.events += [event for attempt in (1, 2, 3) for event in tried(BAD, attempt, "failed")]
    assert run.kinds() == {"second-dead-letter"}


@pytest.mark.parametrize("why", ["redriven", "reset"])
def test_a_second_letter_may_have_a_reason(run: Run, why: str) -> None:
    again = run.letters[0]
    if why == "redriven":
        run.redrives, again = 1, again._replace(redrives=1)
    else:
        run.events.append(Reset(Place(0, 0)))
    run.events += [event for attempt in (1, 2, 3) for event in tried(BAD, attempt, "failed")]
    run.letters.append(again)
    assert run.found() == []


def test_a_redrive_that_nobody_began_is_caught(run: Run) -> None:
    run.letters[0] = run.letters[0]._replace(redrives=1)
    assert run.kinds() == {"phantom"}


def test_a_letter_with_another_record_in_it_is_caught(run: Run) -> None:
    run.letters[0] = run.letters[0]._replace(number=7)
    assert run.kinds() == {"phantom"}


def test_a_letter_may_lack_its_record_only_when_that_was_trimmed(run: Run) -> None:
    run.letters[0] = run.letters[0]._replace(number=GONE)
    assert run.kinds() == {"phantom"}
    run.trimmed = {0: BAD + 1}
    assert run.found() == []


def test_a_record_given_out_before_the_failed_one_of_its_key_is_over_breaks_the_order(run: Run) -> None:
    early = tried(6, 1, "ok")  # the key of 4, which has not used up its attempts
    at = run.events.index(tried(BAD, 3, "failed")[0])
    run.events[at:at] = early
    assert run.kinds() == {"key-order-broken"}
    assert run.found(keyed=False) == []


def test_another_key_need_not_wait(run: Run) -> None:
    at = run.events.index(tried(BAD, 2, "failed")[0])
    run.events[at:at] = tried(5, 1, "ok")
    assert run.found() == []


def test_a_record_that_is_not_what_the_log_holds_is_caught(run: Run) -> None:
    wrong = [event._replace(number=999) for event in tried(9, 1, "ok") if isinstance(event, Try)]
    run.events[-2:] = wrong
    assert run.kinds() == {"inconsistent-offset"}


def test_a_commit_that_was_told_and_is_gone_is_caught(run: Run) -> None:
    run.events += [Standing(Place(0, 7), False), Standing(Place(0, 7), True)]
    assert run.found() == []
    run.events.append(Standing(Place(0, 6), True))
    assert run.kinds() == {"lost-commit"}


def test_a_reset_takes_commits_back(run: Run) -> None:
    run.events += [Standing(Place(0, 7), False), Reset(Place(0, 2)), Standing(Place(0, 2), True)]
    assert run.found() == []


def test_a_log_trimmed_further_than_anybody_asked_is_a_lost_write() -> None:
    assert trim_anomalies({0: 5, 1: 0}, {0: 5}) == []
    assert counted(trim_anomalies({0: 6, 1: 0}, {0: 5})) == {"lost-write": 1}
    assert counted(trim_anomalies({0: 0, 1: 1}, {0: 5})) == {"lost-write": 1}
