"""Saying a name twice before what it names is thrown away."""

import msgspec

from logsvc_common.errors import InvalidRequest


class Confirm(msgspec.Struct, forbid_unknown_fields=True):
    """`confirm` is the name of what is to go."""

    confirm: str


def check_confirm(body: Confirm, name: str) -> None:
    """Raise InvalidRequest unless `body` repeats `name`."""
    if body.confirm != name:
        raise InvalidRequest(f'nothing was done: to throw it away for good, send {{"confirm": "{name[:300]}"}}')
