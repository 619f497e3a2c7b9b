"""`logsvc dashboards`: write out what Grafana and Prometheus need to watch a broker.

The files are shipped with the package as they stand in the repository's `dashboards/`. Three places in them depend on the
machine and are filled in: where Prometheus finds the broker, where Grafana finds Prometheus, and where it finds the dashboards.

Nothing is written when a file that is there differs: it may be somebody's own work, and only `--force` takes it away.
"""

import os
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

import logsvc
from logsvc.cli.connect import FormatOption
from logsvc.cli.exits import FAILED
from logsvc.cli.frame import noun
from logsvc.cli.output import Format, count_of, note, write_json, write_line

app = noun("Grafana dashboards, Prometheus scrape config and alert rules.")

# Shipped folder or file -> where it is written. Folders with everything below them.
LAYOUT = {
    "generated": "grafana/dashboards",
    "provisioning": "grafana/provisioning",
    "alerts": "prometheus/alerts",
    "prometheus.yml": "prometheus/prometheus.yml",
}
BROKER = "127.0.0.1:9293"
PROMETHEUS_URL = "http://127.0.0.1:9090"
DASHBOARDS_PATH = "/var/lib/grafana/dashboards/logsvc"
# What stands between quotes in a YAML file; nothing that ends them, or a line.
HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
NAMED_MAX = 10


@app.callback()
def _verbs() -> None:
    """Keeps `export` a verb: of an application with one command typer makes that command."""


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if missing.")],
    broker: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where Prometheus finds the broker's metrics.")] = BROKER,
    prometheus_url: Annotated[str, typer.Option(metavar="URL", help="Where Grafana finds Prometheus.")] = PROMETHEUS_URL,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there and differ.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Write four Grafana dashboards with their provisioning, a Prometheus config, and alert rules.

    Files that are there already and differ are left alone and named; --force overwrites them. Needs no broker.

    \b
    Examples:
      logsvc dashboards export ./monitoring
      logsvc dashboards export ./monitoring --broker 127.0.0.1:9393 --prometheus-url http://127.0.0.1:9091 --force
    """
    if not HOST_AND_PORT.fullmatch(broker):
        raise typer.BadParameter(f"{broker!r} is no HOST:PORT; it looks like {BROKER}", param_hint="--broker")
    if not _is_url(prometheus_url):
        raise typer.BadParameter(f"{prometheus_url!r} is no URL; it looks like {PROMETHEUS_URL}", param_hint="--prometheus-url")
    fill = {
        BROKER: broker,
        PROMETHEUS_URL: prometheus_url.rstrip("/"),
        DASHBOARDS_PATH: _quoted(folder.resolve() / "grafana" / "dashboards"),
    }
    wanted = {name: _filled(content, fill) for name, content in shipped_files()}
    try:
        differing = [name for name, content in wanted.items() if _differs(folder / name, content)]
        if differing and not force:
            _refuse(folder, differing)
        written = [name for name, content in wanted.items() if _write(folder / name, content)]
    except OSError as error:
        note(f"logsvc: cannot write to {folder}: {error.filename}: {error.strerror}")
        raise typer.Exit(FAILED) from None
    if format is Format.JSON:
        write_json({"folder": str(folder), "files": list(wanted), "written": written})
    else:
        _say(folder, list(wanted), written)


def shipped_files() -> Iterator[tuple[str, str]]:
    """Every file as it is shipped: its path below the folder it is exported to, and its text."""
    root = _shipped_root()
    for source, target in LAYOUT.items():
        yield from _below(root / source, target)


def _shipped_root() -> Traversable:
    """In an installed package the files are inside it; in a checkout beside it, where they are made."""
    inside = files(logsvc) / "_dashboards"
    return inside if inside.is_dir() else Path(str(files(logsvc))).parent / "dashboards"


def _below(source: Traversable, target: str) -> Iterator[tuple[str, str]]:
    if source.is_file():
        yield target, source.read_text("utf-8")
        return
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name):
        yield from _below(entry, f"{target}/{entry.name}")


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and re.fullmatch(r"[!#-&(-~]+", text) is not None


def _quoted(path: Path) -> str:
    """A path as YAML takes it, whatever is in it."""
    text = str(path)
    return text if re.fullmatch(r"[\w./-]+", text, re.ASCII) else "'" + text.replace("'", "''") + "'"


def _filled(content: str, fill: Mapping[str, str]) -> str:
    for default, value in fill.items():
        content = content.replace(default, value)
    return content


def _differs(path: Path, content: str) -> bool:
    try:
        return path.read_bytes() != content.encode()
    except FileNotFoundError:
        return False


def _write(path: Path, content: str) -> bool:
    """Write a file at once or not at all. False when it is there, as wanted."""
    if path.exists() and not _differs(path, content):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _refuse(folder: Path, differing: list[str]) -> None:
    for name in differing[:NAMED_MAX]:
        note(f"logsvc: {folder / name} is there and differs")
    if len(differing) > NAMED_MAX:
        note(f"logsvc: and {count_of(len(differing) - NAMED_MAX, 'other file')}")
    note("nothing was written; --force overwrites them, or give another folder")
    raise typer.Exit(FAILED)


def _say(folder: Path, wanted: list[str], written: list[str]) -> None:
    for name in wanted:
        write_line(f"{folder / name}{'' if name in written else '  (was there)'}")
    config, grafana = folder / "prometheus" / "prometheus.yml", folder / "grafana"
    note("\nNext:")
    note(f"  promtool check config {config}")
    # Its own default is ./data, which here is likely to be the broker's.
    note(f"  prometheus --config.file {config} --storage.tsdb.path {config.parent / 'data'}")
    note(f"  cp -r {grafana / 'provisioning'}/. /etc/grafana/provisioning/   # then restart Grafana")
    note(f"Grafana's user must be able to read {grafana / 'dashboards'}.")
    note("docs/operations.md says how to set it up, and what to do when an alert fires.")
