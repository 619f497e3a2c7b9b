"""`logsvc quota`: how many bytes a second clients may send and be sent."""

import re
from typing import Annotated

import typer

from logsvc.cli.connect import DEFAULT_SERVER, FormatOption, ServerOption, connect
from logsvc.cli.frame import noun
from logsvc.cli.output import Format, human_bytes, note, write_json, write_table
from logsvc_common.messages import CONSUMER_BYTE_RATE, IN_FLIGHT_BYTES, PRODUCER_BYTE_RATE, QUOTA_NAMES, UNLIMITED

app = noun("Limit how many bytes a second clients may send and be sent.")

_SIZE = re.compile(r"(\d{1,18})(B|KiB|MiB|GiB)?")
_UNIT_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

ClientId = Annotated[str, typer.Argument(metavar="CLIENT_ID", help="What clients give as client_id; '' for those without.")]


def parse_quota(text: str) -> int | None:
    """Bytes in `500000`, `512KiB`, `10MiB`; UNLIMITED for `unlimited`, None for `default`. Raises ValueError."""
    if text in ("unlimited", "default"):
        return UNLIMITED if text == "unlimited" else None
    size = _SIZE.fullmatch(text)
    if size is None:
        raise ValueError(f"{text!r} is no quota; it looks like 500000, 512KiB, 10MiB, unlimited or default")
    return int(size[1]) * _UNIT_BYTES[size[2] or ""]


@app.command("set")
def set_quota(
    client_id: ClientId,
    produce: Annotated[
        str | None, typer.Option(metavar="BYTES", help="A second, from its producers: 10MiB, unlimited or default.")
    ] = None,
    fetch: Annotated[str | None, typer.Option(metavar="BYTES", help="A second, to its consumers.")] = None,
    in_flight: Annotated[str | None, typer.Option(metavar="BYTES", help="Sent and waiting for an fsync, at one time.")] = None,
    server: ServerOption = DEFAULT_SERVER,
    format: FormatOption = Format.TEXT,
) -> None:
    """Set quotas of the clients with a client id; those not named stay as they are.

    \b
    Examples:
      logsvc quota set billing --produce 10MiB --fetch 50MiB
      logsvc quota set nightly-export --fetch unlimited
    """
    given = {PRODUCER_BYTE_RATE: produce, CONSUMER_BYTE_RATE: fetch, IN_FLIGHT_BYTES: in_flight}
    try:
        quotas = {name: parse_quota(text) for name, text in given.items() if text is not None}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not quotas:
        raise typer.BadParameter("nothing to set: give --produce, --fetch or --in-flight")
    _alter(client_id, quotas, server, format)


@app.command("list")
def list_quotas(server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """List the quotas that are set, and the broker's defaults.

    \b
    Examples:
      logsvc quota list
      logsvc quota list --format json | jq '.clients[].client_id'
    """
    with connect(server) as admin:
        found = admin.quotas()
    if format is Format.JSON:
        clients = [{"client_id": client.client_id, "quotas": client.quotas} for client in found.clients]
        write_json({"defaults": found.defaults, "clients": clients})
        return
    rows = [("(default)", *_shown(found.defaults))]
    rows += [(client.client_id or "(none)", *_shown(client.quotas)) for client in found.clients]
    write_table(("CLIENT", "PRODUCE/S", "FETCH/S", "IN FLIGHT"), rows)


@app.command()
def remove(client_id: ClientId, server: ServerOption = DEFAULT_SERVER, format: FormatOption = Format.TEXT) -> None:
    """Take back all quotas of a client id: the broker's defaults hold for it again.

    \b
    Example:
      logsvc quota remove billing
    """
    _alter(client_id, dict.fromkeys(QUOTA_NAMES), server, format)


def _alter(client_id: str, quotas: dict[str, int | None], server: str, format: Format) -> None:
    with connect(server) as admin:
        now = admin.alter_quota(client_id, quotas)
    if format is Format.JSON:
        write_json({"client_id": client_id, "quotas": now})
    else:
        words = ", ".join(f"{name} {_size(limit)}" for name, limit in now.items())
        note(f"client id {client_id!r}: {words or 'the defaults of the broker'}")


def _shown(quotas: dict[str, int]) -> tuple[str, ...]:
    return tuple(_size(quotas[name]) if name in quotas else "(default)" for name in QUOTA_NAMES)


def _size(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else human_bytes(limit)
