"""Redrives: putting dead letters back for the group that failed them, seeing how far that is, stopping it."""

import asyncio
import logging
import secrets
from typing import Annotated

import msgspec

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.dead_letters import find_dead_letter_topic
from logsvc.listeners.api.operations import Given, Operation
from logsvc.listeners.api.where import Filter, Where, parse_where, show_filter
from logsvc_common.errors import UnknownGroup, UnknownRedrive
from logsvc_common.messages import (
    CancelRedrive,
    CancelRedriveReply,
    LetterTopic,
    ListRedrives,
    ListRedrivesReply,
    Redrive,
    StartRedrive,
    StartRedriveReply,
)
from logsvc_common.messages.redrive import FILTER_TEXT_CHARACTERS_MAX

logger = logging.getLogger(__name__)

DRY_RUN_WAIT_MS = 5_000  # a longer dry run is answered while it runs, and can be looked at as any other
DRY_RUN_LOOK_SECONDS = 0.05
RATE_MAX = 1_000_000


class ShownRedrive(msgspec.Struct, forbid_unknown_fields=True):
    """A redrive, running or over. `state` is `running`, `cancelled` or `done`. Of the `total` letters there were when it began,
    `done` are behind it; `matched` met the filter and had not been redriven, of those `redriven` were put back and `skipped`
    could not be. `waiting` says what a running one waits for."""

    id: int
    group: str
    topic: str
    dead_letter_topic: str
    state: str
    where: Filter
    rate: int
    limit: int
    dry_run: bool
    total: int
    done: int
    matched: int
    redriven: int
    skipped: int
    created_ms: int
    updated_ms: int
    waiting: str


class Redrives(msgspec.Struct, forbid_unknown_fields=True):
    """Those that run, and of each group the last ones that are over."""

    redrives: list[ShownRedrive]


class RedrivesQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose redrives."""

    group: Annotated[str, msgspec.Meta(description="Only those of this group")] | None = None


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters, how fast and how many at most: `rate` a second and `limit` in all, 0 for no bound. A dry run only counts.
    A request that comes twice with the same `request_id` starts one redrive."""

    where: Where = msgspec.field(default_factory=Where)
    dry_run: bool = False
    rate: Annotated[int, msgspec.Meta(ge=0, le=RATE_MAX)] = 0
    limit: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))] = 0
    request_id: Annotated[str, msgspec.Meta(max_length=FILTER_TEXT_CHARACTERS_MAX)] = ""


class Started(msgspec.Struct, forbid_unknown_fields=True):
    """The redrive that was begun, null after a dry run that is over; `matched` so far, for a dry run those that would be put
    back."""

    id: int | None
    matched: int
    redrive: ShownRedrive


class NoBody(msgspec.Struct, forbid_unknown_fields=True):
    """Takes no fields: `{}`."""


def _show(redrive: Redrive) -> ShownRedrive:
    return ShownRedrive(
        id=redrive.redrive_id,
        group=redrive.group,
        topic=redrive.topic,
        dead_letter_topic=redrive.dead_letter_topic,
        state=redrive.state,
        where=show_filter(redrive.where),
        rate=redrive.rate_per_s,
        limit=redrive.limit,
        dry_run=redrive.dry_run,
        total=redrive.total,
        done=redrive.scanned,
        matched=redrive.matched,
        redriven=redrive.redriven,
        skipped=redrive.skipped,
        created_ms=redrive.created_ms,
        updated_ms=redrive.updated_ms,
        waiting=redrive.waiting,
    )


async def list_redrives(backend: Backend, given: Given) -> Redrives:
    """List the redrives"""
    found = (await backend.ask(ListRedrives(given.query.group), ListRedrivesReply)).redrives
    return Redrives([_show(redrive) for redrive in found])


async def get_redrive(backend: Backend, given: Given) -> ShownRedrive:
    """See how far a redrive is"""
    return _show(await _find(backend, given.path["redrive_id"]))


async def _find(backend: Backend, redrive_id: int) -> Redrive:
    for redrive in (await backend.ask(ListRedrives(), ListRedrivesReply)).redrives:
        if redrive.redrive_id == redrive_id:
            return redrive
    raise UnknownRedrive(f"no redrive {redrive_id}; GET /api/v1/redrives lists those that run, and the last that are over")


async def start_redrive(backend: Backend, given: Given) -> Started:
    """Put dead letters back for the group that failed them

    Each once, with a fresh budget of attempts; letters redriven before are left out. It goes on in the broker, over restarts
    too. With `dry_run` nothing changes, and the answer says how many letters it would be.
    """
    body: StartBody = given.body
    letters = await _letters(backend, given.path["dead_letter_topic"])
    request = StartRedrive(
        letters.group,
        letters.topic,
        parse_where(body.where),
        body.rate,
        body.limit,
        body.dry_run,
        body.request_id or secrets.token_hex(16),
    )
    begun = (await backend.ask(request, StartRedriveReply)).redrive
    if not body.dry_run:
        logger.info("redrive %d of %s begun over HTTP by %s", begun.redrive_id, begun.dead_letter_topic, given.peer)
        return Started(begun.redrive_id, begun.matched, _show(begun))
    deadline_ms = backend.clock.monotonic_ms() + DRY_RUN_WAIT_MS
    while begun.state == "running" and backend.clock.monotonic_ms() < deadline_ms:
        await asyncio.sleep(DRY_RUN_LOOK_SECONDS)
        begun = await _find(backend, begun.redrive_id)
    is_over = begun.state != "running"
    return Started(None if is_over else begun.redrive_id, begun.matched - begun.skipped, _show(begun))


async def _letters(backend: Backend, dead_letter_topic: str) -> LetterTopic:
    """Whose letters a topic holds. Raises UnknownTopic, UnknownGroup."""
    topic = await find_dead_letter_topic(backend, dead_letter_topic)
    for letters in (await backend.ask(ListRedrives(), ListRedrivesReply)).letters:
        if letters.dead_letter_topic == topic.topic:
            return letters
    raise UnknownGroup(f"the group whose letters {topic.topic} holds is gone: nobody is there to handle them again")


async def cancel_redrive(backend: Backend, given: Given) -> ShownRedrive:
    """Stop a redrive where it is

    What it has put back stays; a new one with the same filter goes on with the rest.
    """
    redrive = (await backend.ask(CancelRedrive(given.path["redrive_id"]), CancelRedriveReply)).redrive
    logger.info("redrive %d of %s cancelled over HTTP by %s", redrive.redrive_id, redrive.dead_letter_topic, given.peer)
    return _show(redrive)


OPERATIONS = (
    Operation("GET", "/redrives", list_redrives, Redrives, RedrivesQuery, tag="redrives"),
    Operation("GET", "/redrives/{redrive_id}", get_redrive, ShownRedrive, tag="redrives"),
    Operation("POST", "/dead-letters/{dead_letter_topic}/redrive", start_redrive, Started, body=StartBody, tag="redrives"),
    Operation("POST", "/redrives/{redrive_id}/cancel", cancel_redrive, ShownRedrive, body=NoBody, tag="redrives"),
)
