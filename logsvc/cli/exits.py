"""Exit codes, and which error ends in which: a script can tell a typing mistake from a broker that is away."""

from logsvc_common import errors

FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
CHECK_FAILED = 5

_BY_ERROR: tuple[tuple[tuple[type[errors.LogsvcError], ...], int], ...] = (
    ((errors.UnknownTopic, errors.UnknownGroup, errors.UnknownRedrive), NOT_FOUND),
    ((errors.InvalidTopicName, errors.InvalidGroupName, errors.InvalidConfig, errors.InvalidPartitions), USAGE),
    ((errors.RequestTimeout, errors.Disconnected, errors.BufferExhausted), UNREACHABLE),
)


def exit_code(error: errors.LogsvcError) -> int:
    """The exit code that says who is to blame for `error`."""
    return next((code for kinds, code in _BY_ERROR if isinstance(error, kinds)), FAILED)
