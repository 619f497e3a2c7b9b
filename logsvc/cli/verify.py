"""`logsvc verify`: read every byte of a data folder that no broker uses, and say what is not as it was written."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from logsvc.cli.connect import FormatOption
from logsvc.cli.exits import FAILED
from logsvc.cli.frame import single_command
from logsvc.cli.output import Format, count_of, human_bytes, note, progress, write_json, write_line, write_table
from logsvc.storage.checker import PartitionReport
from logsvc.storage.disk import RealDisk
from logsvc.storage.verify import Report, size_bytes
from logsvc.storage.verify import verify as check

app = single_command()


@app.command()
def verify(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="A broker's data folder, or one partition's folder."),
    ],
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is wrong; damaged bytes are kept beside, in *.corrupt.")
    ] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Check a data folder: every batch's CRC, offsets without gaps, both indexes, the checkpoint.

    The broker must be stopped. A torn tail is no fault: those bytes were never acknowledged, and the next start cuts them.
    Each fault is told with file, byte and offset. Exit code 0 when all is as it was written or has been repaired, 1 when not.

    With --repair, records that cannot be read any more stay lost, and each such offset is named; everything else is kept and
    the partition takes records again. Nothing is deleted: `*.corrupt` files beside the segments hold what was taken out.

    \b
    Examples:
      logsvc verify ./logsvc-data
      logsvc verify ./logsvc-data/orders-0 --repair
      logsvc verify ./logsvc-data --format json | jq '.partitions[].faults[]'
    """
    disk = RealDisk()
    with progress("checking", size_bytes(disk, str(folder)), in_bytes=True) as show:
        checked: dict[str, int] = {}

        def advance(partition: str, checked_bytes: int) -> None:
            checked[partition] = checked_bytes
            show(sum(checked.values()))

        report = check(disk, str(folder), repair=repair, progress=advance)
    if format is Format.JSON:
        write_json(_document(report))
    else:
        _print(report)
    if not report.ok and not report.repaired:
        note(f"{folder} has faults; with the broker stopped, mend them: logsvc verify {folder} --repair")
        raise typer.Exit(FAILED)


def _document(report: Report) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(report)
    document["ok"] = report.ok
    for partition, found in zip(document["partitions"], report.partitions, strict=True):
        partition["ok"] = found.ok
        partition["lost_offsets"] = [list(span) for span in found.lost_offsets]
    return document


def _print(report: Report) -> None:
    rows = [
        (
            Path(p.folder).name,
            p.segments,
            p.batches,
            p.records,
            human_bytes(p.bytes),
            p.start_offset,
            p.end_offset,
            len(p.faults),
        )
        for p in report.partitions
    ]
    write_table(("PARTITION", "SEGMENTS", "BATCHES", "RECORDS", "SIZE", "START", "END", "FAULTS"), rows)
    for partition in report.partitions:
        _print_faults(partition)
    verdict = "all is as it was written" if report.ok else "repaired" if report.repaired else "NOT as it was written"
    write_line(f"{report.path}: {count_of(len(report.partitions), 'partition')}, {verdict}")


def _print_faults(partition: PartitionReport) -> None:
    for fault in partition.faults:
        offset = f", offset {fault.offset}" if fault.offset >= 0 else ""
        lost = f"; offsets {fault.lost_first} to {fault.lost_last} are lost" if fault.lost_first >= 0 else ""
        where = f"{Path(partition.folder).name}/{fault.file}"
        write_line(f"{where} at byte {fault.position}{offset}: {fault.kind}: {fault.message}{lost}")
    if partition.faults_omitted:
        write_line(f"{partition.folder}: {count_of(partition.faults_omitted, 'more fault')}")
    if partition.bad_bytes:
        write_line(f"{partition.folder}: {count_of(partition.bad_bytes, 'byte')} are no part of a good batch")
    for repair in partition.repairs:
        write_line(f"{partition.folder}: {repair}")
