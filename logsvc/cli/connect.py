"""Options that many commands share, and the connection they stand for."""

from typing import Annotated

import typer

from logsvc.cli.output import Format
from logsvc_client import Admin
from logsvc_common.errors import InvalidConfig

DEFAULT_SERVER = "tcp://127.0.0.1:9292"
# A person waits for this; a broker that recovers a large log needs less than two seconds.
CONNECT_TIMEOUT_MS = 5_000
# A broker that is there is given time: a topic of a thousand partitions takes thousands of fsyncs.
REQUEST_TIMEOUT_MS = 120_000

ServerOption = Annotated[str, typer.Option("--server", envvar="LOGSVC_SERVER", help="Address of the broker.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print data.")]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config", "-c", metavar="NAME=VALUE", help="A setting by Kafka's name, as in retention.ms=86400000. Repeat it."
    ),
]


def connect(server: str) -> Admin:
    """An admin client of a broker that answers; its requests end after REQUEST_TIMEOUT_MS.

    Raises RequestTimeout when nobody has answered after CONNECT_TIMEOUT_MS.
    """
    admin = Admin(server, client_id="logsvc-cli", timeout_ms=CONNECT_TIMEOUT_MS)
    try:
        admin.ping()
    except BaseException:
        admin.close()
        raise
    admin.timeout_ms = REQUEST_TIMEOUT_MS
    return admin


def parse_settings(pairs: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE` pairs as a mapping. Raises InvalidConfig for one without `=`, or a name given twice."""
    settings: dict[str, str] = {}
    for pair in pairs or []:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidConfig(f"{pair!r} is no setting; it looks like retention.ms=86400000")
        if name in settings:
            raise InvalidConfig(f"{name} is given twice")
        settings[name] = value
    return settings
