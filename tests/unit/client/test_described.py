"""What a failure says about its exception: as `traceback` prints it, at a price that one record in a hundred can pay."""

import traceback

from logsvc_client.described import ERROR_CHARACTERS_MAX, STACKTRACE_CHARACTERS_MAX, described


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:  # noqa: BLE001
        return caught


def test_a_stack_trace_names_the_frames_and_the_error() -> None:
    error = raised(ValueError("no"))
    for _ in range(2):  # the second time from memory
        message, name, trace = described(error)
        assert (message, name) == ("no", "ValueError")
        first, file, source, last = trace.splitlines()
        assert first == "Traceback (most recent call last):"
        assert file == f'  File "{__file__}", line {error.__traceback__.tb_lineno}, in raised'  # type: ignore[union-attr]
        assert source == "    raise error from cause"
        assert last == "ValueError: no"


def test_a_chain_of_errors_is_printed_whole() -> None:
    error = raised(KeyError("k"), raised(OSError("disk")))
    assert described(error)[2] == "".join(traceback.format_exception(error))


def test_an_error_that_was_never_raised_is_its_name_and_message() -> None:
    assert described(ValueError("never")) == ("never", "ValueError", "ValueError: never\n")
    assert described("in words") == ("in words", "", "")


def test_everything_is_cut_at_its_limit() -> None:
    message, _, trace = described(raised(ValueError("x" * 100_000)))
    assert len(message) == ERROR_CHARACTERS_MAX
    assert len(trace) == STACKTRACE_CHARACTERS_MAX
