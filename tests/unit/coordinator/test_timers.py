"""Deadlines by key."""

from logsvc.coordinator.timers import Timers


def test_the_earliest_deadline_is_next() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_ms() is None
    timers.set("late", 20)
    timers.set("soon", 10)
    assert timers.next_ms() == 10


def test_a_deadline_passes_on_its_millisecond_and_stays_until_cancelled() -> None:
    timers: Timers[str] = Timers()
    timers.set("b", 20)
    timers.set("a", 10)
    assert timers.passed(9) == []
    assert timers.passed(10) == ["a"]
    assert timers.passed(20) == ["a", "b"]
    timers.cancel("a")
    assert timers.passed(20) == ["b"]


def test_setting_again_moves_a_deadline() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 10)
    timers.set("a", 30)
    assert timers.passed(29) == []
    timers.cancel("a")
    timers.cancel("a")
    assert timers.next_ms() is None
