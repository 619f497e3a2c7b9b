"""An error as a failure carries it to the broker, and from there into the dead letter: text, each piece cut at its limit."""

import traceback
from functools import lru_cache
from types import CodeType

ERROR_CHARACTERS_MAX = 4_096
STACKTRACE_CHARACTERS_MAX = 16_384
FRAMES_REMEMBERED_MAX = 1_024
# With the place in the source, with suggestions, with the errors inside.
_SAID_IN_FULL = (SyntaxError, NameError, AttributeError, ImportError, BaseExceptionGroup)


def described(error: BaseException | str) -> tuple[str, str, str]:
    """An error as a failure carries it: message, dotted class, stack trace; each cut at its limit."""
    if isinstance(error, str):
        return error[:ERROR_CHARACTERS_MAX], "", ""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return str(error)[:ERROR_CHARACTERS_MAX] or kind.__name__, name, _stacktrace(error)[-STACKTRACE_CHARACTERS_MAX:]


def _stacktrace(error: BaseException) -> str:
    """As `traceback` prints it. It asks the file system about every frame's file, every time: a handler that fails for one
    record in a hundred would spend more on that than on all others, so frames that were printed before are remembered."""
    frames = [_frame_text(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if not frames or error.__cause__ is not None or error.__context__ is not None:
        return "".join(traceback.format_exception(error))
    return "".join(["Traceback (most recent call last):\n", *frames, *_last_lines(error)])


def _last_lines(error: BaseException) -> list[str]:
    """The class and the message. `traceback` is asked only where it has more to say: it looks at the whole exception first."""
    if hasattr(error, "__notes__") or isinstance(error, _SAID_IN_FULL):
        return traceback.format_exception_only(error)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in ("__main__", "builtins") else f"{kind.__module__}.{kind.__qualname__}"
    text = str(error)
    return [f"{name}: {text}\n" if text else f"{name}\n"]


@lru_cache(maxsize=FRAMES_REMEMBERED_MAX)
def _frame_text(code: CodeType, line: int) -> str:
    return "".join(traceback.format_list([traceback.FrameSummary(code.co_filename, line, code.co_name)]))
