"""`logsvc serve`: run a broker until SIGTERM."""

import asyncio
import ipaddress
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from logsvc.app import App
from logsvc.app import serve as serve_until_told
from logsvc.cli.frame import single_command
from logsvc.cli.output import Format
from logsvc.config import ServerSettings

app = single_command()


@app.command()
def serve(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the log, made if missing. [default: ./logsvc-data]", show_default=False)
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            help="Where clients connect; port 0 takes any free one. [default: tcp://127.0.0.1:9292]", show_default=False
        ),
    ] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Where console, API and metrics are served. [default: 127.0.0.1]", show_default=False)
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="0 takes any free one, -1 serves none. [default: 9293]", show_default=False)
    ] = None,
    http_allowed_hosts: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Names beside localhost that the console may be reached by.", show_default=False),
    ] = None,
    console_writes: Annotated[
        bool | None,
        typer.Option("--console-writes", help="Let the console redrive, purge, resume and delete.", show_default=False),
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log as JSON lines.", show_default=False)] = None,
    kafka_exporter_metrics: Annotated[
        bool | None,
        typer.Option("--kafka-exporter-metrics", help="Serve metrics under kafka_exporter's names too.", show_default=False),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    format: Annotated[Format, typer.Option(help="How to say where it listens.")] = Format.TEXT,
) -> None:
    """Run a broker until SIGTERM or Ctrl-C.

    It prints one line on stdout when clients can connect, and logs on stderr. An acknowledged record is on the disk: stopping
    the broker, with kill -9 too, loses none. Settings are also read from LOGSVC_DATA_DIR, LOGSVC_BIND and so on.

    \b
    Examples:
      logsvc serve
      logsvc serve --data-dir /var/lib/logsvc --bind tcp://127.0.0.1:9292
      logsvc serve --console-writes
      logsvc serve --bind tcp://127.0.0.1:0 --http-port 0 --format json
    """
    given = {
        "data_dir": data_dir,
        "bind": bind,
        "http_host": http_host,
        "http_port": http_port,
        "http_allowed_hosts": http_allowed_hosts,
        "console_writes": console_writes,
        "log_json": log_json,
        "kafka_exporter_metrics": kafka_exporter_metrics,
    }
    settings = _settings({name: str(value) for name, value in given.items() if value is not None})
    _refuse_other_hosts(settings)
    _log_to_stderr(log_level, as_json=settings.log_json)

    def announce(running: App) -> None:
        print(_announcement(running, settings, format), flush=True)

    asyncio.run(serve_until_told(settings, announce))


def _settings(given: dict[str, Any]) -> ServerSettings:
    try:
        return ServerSettings(**given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        raise typer.BadParameter(wrong) from None


def _refuse_other_hosts(settings: ServerSettings) -> None:
    """Whoever reaches the port may read and write everything, so only this machine may reach it."""
    for option, host in (("--bind", _host_of(settings.bind)), ("--http-host", settings.http_host)):
        if not _is_loopback(host):
            raise typer.BadParameter(
                f"{host or '*'} can be reached from other machines, and this version has no keys to tell clients apart: "
                "listen on 127.0.0.1 (or ::1), and let others in through an SSH tunnel or a VPN on this machine",
                param_hint=option,
            )


def _host_of(bind: str) -> str:
    parts = urlsplit(bind)
    if parts.scheme != "tcp" or not parts.netloc:
        raise typer.BadParameter(f"{bind!r} is no address; it looks like tcp://127.0.0.1:9292", param_hint="--bind")
    return parts.netloc.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _announcement(running: App, settings: ServerSettings, format: Format) -> str:
    if format is Format.JSON:
        return json.dumps({"server": running.endpoint, "http_url": running.http_url, "data_dir": settings.data_dir})
    console = f"  console {running.http_url}/" if running.http_url else ""
    return f"logsvc is ready: {running.endpoint}{console}  data {settings.data_dir}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _log_to_stderr(level: str, *, as_json: bool) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"{level!r} is not debug, info, warning or error", param_hint="--log-level")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=number, handlers=[handler])
    # The web server reports its own starts and stops, which the broker's lines say already, and warns of every request that
    # is no HTTP: whoever reaches the port could fill the log.
    logging.getLogger("uvicorn").setLevel(max(number, logging.ERROR))
