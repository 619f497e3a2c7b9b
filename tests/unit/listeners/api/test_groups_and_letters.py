"""Groups, dead letters and redrives over HTTP: who is behind, what failed, putting it back, throwing it away."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from logsvc.listeners.api import dead_letters, piles, scan
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import RecordData
from logsvc_common.messages import (
    JOIN_EPOCH,
    NO_MEMBER_EPOCH,
    Commit,
    CommitPartition,
    Failure,
    GroupHeartbeat,
)
from logsvc_common.retry import RetryPolicy
from tests.unit.listeners.api.world import World, world

ERRORS = {2: "ValueError: a is odd", 5: "TypeError: b is even", 7: "ValueError: c is odd"}


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with world() as running:
        yield running


def failed(api: World, topic: str, group: str, *, partitions: int = 1) -> str:
    """A topic whose group has handled ten records of each partition and failed three: its dead-letter topic."""
    api.topic(topic, partitions)
    dead = ""
    for partition in range(partitions):
        api.produce(topic, [RecordData(b"v%d" % n, b"k", 1_000 + n, [("own", b"1")]) for n in range(10)], partition=partition)
        dead = api.fail(topic, group, ERRORS, partition=partition, upto=8)
    return dead


def letters_of(dead: str) -> str:
    return f"/api/v1/dead-letters/{dead}/letters"


def test_a_group_is_listed_with_its_lag_failures_and_letters(api: World) -> None:
    failed(api, "g1", "behind")
    groups = {group["group"]: group for group in api.get("/api/v1/groups").json["groups"]}
    found = groups["behind"]
    assert (found["lag"], found["dead_letters"], found["state"], found["members"]) == (2, 3, "empty", 0)
    assert found["lag_seconds"] > 1_000_000  # its records are from 1970
    assert found["breaker"] == {"state": "closed"}


def test_a_group_tells_its_members_policy_progress_and_breaker(api: World) -> None:
    failed(api, "g2", "told")
    policy = RetryPolicy(max_attempts=7)
    joined = api.ask(GroupHeartbeat("told", "m-1", JOIN_EPOCH, client_id="me", topics=["g2"], owned=[], retry=policy))
    found = api.get("/api/v1/groups/told").json
    (member,) = found["member_list"]
    assert (member["member_id"], member["client_id"], member["member_epoch"]) == ("m-1", "me", joined.member_epoch)
    assert member["target"] == [{"topic": "g2", "partitions": [0]}]
    assert found["retry"]["max_attempts"] == 7
    assert found["breaker"]["config"]["enabled"] is True
    (progress,) = found["partition_list"]
    assert (progress["committed"], progress["end_offset"], progress["lag"]) == (8, 10, 2)
    assert api.get("/api/v1/groups/told/history").json["interval_ms"] > 0


def test_a_group_that_has_not_committed_somewhere_says_null(api: World) -> None:
    api.topic("g3")
    api.ask(GroupHeartbeat("fresh", "m-1", JOIN_EPOCH, topics=["g3"], owned=[]))
    found = api.get("/api/v1/groups/fresh").json
    assert [progress["committed"] for progress in found["partition_list"]] == [None] * len(found["partition_list"])


def test_dead_letter_topics_are_listed_with_their_commonest_errors(api: World) -> None:
    dead = failed(api, "d1", "lister")
    topics = {topic["topic"]: topic for topic in api.get("/api/v1/dead-letters").json["topics"]}
    pile = topics[dead]
    assert (pile["source_topic"], pile["group"], pile["letters"], pile["redriven"]) == ("d1", "lister", 3, 0)
    assert pile["oldest_ms"] <= pile["newest_ms"]
    assert pile["top_errors"][0] == {
        "error": "ValueError",
        "count": 2,
        "message": "ValueError: c is odd",
        "exception_class": "ValueError",
    }


def test_a_pile_that_there_was_no_time_for_has_its_number_only(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = failed(api, "d0", "hurried")

    def pile() -> Any:
        (found,) = [pile for pile in api.get("/api/v1/dead-letters").json["topics"] if pile["topic"] == dead]
        return found

    with monkeypatch.context() as hurry:
        hurry.setattr(dead_letters, "PILES_MS_MAX", 0)
        hurried = pile()
        assert (hurried["letters"], hurried["group"], hurried["oldest_ms"], hurried["top_errors"]) == (3, "hurried", None, [])
    assert len(pile()["top_errors"]) == 2


def test_a_pile_too_large_to_count_tells_the_ages_of_its_first_and_last_letters(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given letters of which only some may be looked at
    dead = failed(api, "d10", "large")
    api.produce(dead, [RecordData(b"", timestamp_ms=5)])
    api.produce(dead, [RecordData(b"", timestamp_ms=1 << 42)])
    monkeypatch.setattr(piles, "ERRORS_LETTERS_MAX", 3)
    monkeypatch.setattr(scan, "SCANNED_BYTES_MAX", 1)
    # When they are listed, then the newest is the last one all the same.
    (pile,) = [pile for pile in api.get("/api/v1/dead-letters").json["topics"] if pile["topic"] == dead]
    assert (pile["letters"], pile["newest_ms"]) == (5, 1 << 42)
    assert sum(error["count"] for error in pile["top_errors"]) < 3


def test_a_pile_is_counted_anew_when_letters_come_or_go(api: World) -> None:
    dead = failed(api, "d2", "recount")

    def letters() -> int:
        (pile,) = [pile for pile in api.get("/api/v1/dead-letters").json["topics"] if pile["topic"] == dead]
        count: int = pile["letters"]
        return count

    assert letters() == 3
    api.fail("d2", "recount", {8: "ValueError: late"})
    assert letters() == 4
    api.post(f"/api/v1/dead-letters/{dead}/purge", {"confirm": dead})
    assert letters() == 0


def test_a_letter_tells_where_it_came_from_and_why(api: World) -> None:
    dead = failed(api, "d3", "teller")
    page = api.get(letters_of(dead)).json
    assert (len(page["letters"]), page["next"], page["matched_so_far"]) == (3, None, 3)
    letter = page["letters"][0]
    assert letter["source"] == {"topic": "d3", "partition": 0, "offset": 2, "timestamp_ms": 1_002}
    assert (letter["group"], letter["attempts"], letter["error"]) == ("teller", 1, "ValueError: a is odd")
    assert (letter["exception_class"], letter["value"], letter["key"]) == ("ValueError", {"text": "v2"}, {"text": "k"})
    assert letter["headers"] == [["own", {"text": "1"}]]


@pytest.mark.parametrize(
    ("conditions", "offsets"),
    [
        ("error=odd", [2, 7]),
        ("error=ODD", [2, 7]),
        ("error_is=TypeError:%20b%20is%20even", [5]),
        ("exception=TypeError", [5]),
        ("exception=TypeError&exception=ValueError", [2, 5, 7]),
        ("offset_from=3", [5, 7]),
        ("offset_from=3&offset_to=5", [5]),
        ("letter_to=0", [2]),
        ("letter_from=1", [5, 7]),
        ("partition=1", []),
        ("from_ms=0&to_ms=1000", []),
        ("from_ms=1000", [2, 5, 7]),
        ("redrives_from=1", []),
        ("error=odd&offset_from=3", [7]),
    ],
)
def test_letters_are_filtered(api: World, conditions: str, offsets: list[int]) -> None:
    if "dlq.d4.filter" not in api.logs.topics:
        failed(api, "d4", "filter")
    page = api.get(f"{letters_of('dlq.d4.filter')}?{conditions}").json
    assert [letter["source"]["offset"] for letter in page["letters"]] == offsets
    assert page["next"] is None


def pages(api: World, target: str) -> tuple[list[Any], int]:
    """All letters, and how many pages they took."""
    found: list[Any] = []
    after, count = None, 0
    while True:
        page = api.get(target + (f"&after={after}" if after else "")).json
        found += page["letters"]
        assert page["matched_so_far"] == len(found)
        count += 1
        assert count < 100
        if (after := page["next"]) is None:
            return found, count


def test_pages_of_letters_lead_through_all_partitions(api: World) -> None:
    dead = failed(api, "d5", "paged", partitions=3)
    letters, count = pages(api, f"{letters_of(dead)}?limit=2")
    places = [(letter["letter_partition"], letter["letter_offset"]) for letter in letters]
    assert places == [(partition, offset) for partition in range(3) for offset in range(3)]
    assert count >= 5


def test_a_filter_that_matches_nothing_on_a_page_goes_on_behind_it(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SCANNED_BYTES_MAX", 1)
    dead = failed(api, "d6", "rare", partitions=2)
    letters, count = pages(api, f"{letters_of(dead)}?error=even")
    assert [letter["letter_partition"] for letter in letters] == [0, 1]
    assert count > 2


@pytest.mark.parametrize("after", ["", "x", "1", "1.2", "-1.0.0", "1.2.3.4", "1.2.99999999999999999999"])
def test_a_cursor_that_never_was_is_refused(api: World, after: str) -> None:
    if "dlq.d7.cursor" not in api.logs.topics:
        failed(api, "d7", "cursor")
    assert api.get(f"{letters_of('dlq.d7.cursor')}?after={after}").status == 400


def test_a_cursor_beyond_the_end_is_the_end(api: World) -> None:
    dead = failed(api, "d8", "beyond")
    assert api.get(f"{letters_of(dead)}?after=99.0.5").json == {"letters": [], "next": None, "matched_so_far": 5}
    assert api.get(f"{letters_of(dead)}?after=0.99.5").json["next"] is None


def test_a_topic_without_dead_letters_is_told_apart(api: World) -> None:
    api.topic("plain")
    answer = api.get(letters_of("plain"))
    assert (answer.status, answer.code) == (404, "UNKNOWN_TOPIC")
    assert "not a dead-letter topic" in answer.message
    assert api.get(letters_of("dlq.no.no")).status == 404


def test_a_record_that_anyone_has_written_to_a_dead_letter_topic_is_shown_too(api: World) -> None:
    dead = failed(api, "d9", "strange")
    api.produce(dead, [RecordData(b"\x00", None, 5, [("x" * 10_000, b"y" * 10_000)] * 200)])
    letter = api.get(f"{letters_of(dead)}?letter_from=3").json["letters"][0]
    assert (letter["source"]["topic"], letter["error"], letter["value"]) == (None, None, {"base64": "AA=="})
    assert len(letter["headers"]) == 100
    assert len(letter["headers"][0][0]) == 4_096


def wait_for(api: World, redrive: int) -> Any:
    deadline = time.monotonic() + 20
    while (found := api.get(f"/api/v1/redrives/{redrive}").json)["state"] == "running":
        assert time.monotonic() < deadline
    return found


def test_a_redrive_is_previewed_begun_and_watched(api: World) -> None:
    dead = failed(api, "r1", "again")
    # When it is previewed, then it is counted, and nothing is put back.
    preview = api.post(f"/api/v1/dead-letters/{dead}/redrive", {"where": {"error": "odd"}, "dry_run": True}).json
    assert (preview["id"], preview["matched"], preview["redrive"]["state"]) == (None, 2, "done")
    # When it is begun, then the group has them again.
    begun = api.post(f"/api/v1/dead-letters/{dead}/redrive", {"where": {"error": "odd"}, "rate": 1000}).json
    done = wait_for(api, begun["id"])
    assert (done["state"], done["matched"], done["redriven"], done["total"], done["done"]) == ("done", 2, 2, 3, 3)
    assert done["where"] == {"error_contains": ["odd"]}
    assert sum(api.get("/api/v1/groups/again").json["failed"].values()) == 2
    (pile,) = [pile for pile in api.get("/api/v1/dead-letters").json["topics"] if pile["topic"] == dead]
    assert pile["redriven"] == 2
    listed = api.get("/api/v1/redrives?group=again").json["redrives"]
    assert begun["id"] in {redrive["id"] for redrive in listed}
    assert api.get("/api/v1/redrives?group=unheard-of").json == {"redrives": []}


def test_a_redrive_asked_for_twice_under_one_id_is_one(api: World) -> None:
    dead = failed(api, "r2", "once")
    body = {"request_id": "7", "where": {"letter_from": 0, "letter_to": 0, "partition": 0}}
    first = api.post(f"/api/v1/dead-letters/{dead}/redrive", body).json
    second = api.post(f"/api/v1/dead-letters/{dead}/redrive", body).json
    assert first["id"] == second["id"]
    assert wait_for(api, first["id"])["redriven"] == 1


def test_a_slow_redrive_is_cancelled_where_it_is(api: World) -> None:
    dead = failed(api, "r3", "slow", partitions=4)
    begun = api.post(f"/api/v1/dead-letters/{dead}/redrive", {"rate": 1}).json
    cancelled = api.post(f"/api/v1/redrives/{begun['id']}/cancel").json
    assert (cancelled["id"], cancelled["state"]) == (begun["id"], "cancelled")


def test_a_redrive_for_a_group_that_is_gone_is_refused(api: World) -> None:
    api.topic("dlq.nobody.known")
    answer = api.post("/api/v1/dead-letters/dlq.nobody.known/redrive")
    assert (answer.status, answer.code) == (404, "UNKNOWN_GROUP")


@pytest.mark.parametrize(
    "body",
    [
        {"where": {"eror": "x"}},
        {"where": {"offset_from": 5, "offset_to": 4}},
        {"where": {"partition": -1}},
        {"where": {"error": "x" * 1_025}},
        {"where": {"error": ["x"] * 101}},
        {"rate": -1},
        {"rate": 10_000_000},
        {"dry_run": 1},
        {"limit": 2**64},
        [],
        None,
    ],
)
def test_a_redrive_that_is_not_understood_begins_nothing(api: World, body: object) -> None:
    if "dlq.r4.strict" not in api.logs.topics:
        failed(api, "r4", "strict")
    before = api.get("/api/v1/redrives").json
    answer = api.post("/api/v1/dead-letters/dlq.r4.strict/redrive", raw=b"null" if body is None else None, body=body)
    assert (answer.status, answer.code) == (400, "INVALID_REQUEST")
    assert api.get("/api/v1/redrives").json == before


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'"\xff"', b"[" * 60_000, b'{"rate": 1e999}', b"NaN", b"{}{}"])
def test_a_body_that_is_not_json_is_told(api: World, raw: bytes) -> None:
    if "dlq.r5.json" not in api.logs.topics:
        failed(api, "r5", "json")
    answer = api.post("/api/v1/dead-letters/dlq.r5.json/redrive", raw=raw)
    assert (answer.status, answer.code) == (400, "INVALID_REQUEST")


def test_an_unknown_redrive_is_404(api: World) -> None:
    for answer in (api.get("/api/v1/redrives/999"), api.post("/api/v1/redrives/999/cancel")):
        assert (answer.status, answer.code) == (404, "UNKNOWN_REDRIVE")


def test_purging_takes_the_name_twice_and_says_how_many_went(api: World, caplog: pytest.LogCaptureFixture) -> None:
    dead = failed(api, "p1", "purger")
    answer = api.post(f"/api/v1/dead-letters/{dead}/purge", {"confirm": "dlq.other"})
    assert (answer.status, api.records_of(dead)) == (400, 3)
    with caplog.at_level(logging.INFO, "logsvc.listeners.api"):
        assert api.post(f"/api/v1/dead-letters/{dead}/purge", {"confirm": dead}).json == {"topic": dead, "purged": 3}
    assert api.records_of(dead) == 0
    assert "3 letters of dlq.p1.purger purged over HTTP by 127.0.0.1:50000" in caplog.text
    assert api.post("/api/v1/dead-letters/p1/purge", {"confirm": "p1"}).status == 404


def test_deleting_a_topic_takes_its_name_twice(api: World, caplog: pytest.LogCaptureFixture) -> None:
    api.topic("gone")
    api.produce("gone", [RecordData(b"1")])
    assert api.post("/api/v1/topics/gone/delete", {"confirm": "go"}).status == 400
    with caplog.at_level(logging.INFO, "logsvc.listeners.api"):
        assert api.post("/api/v1/topics/gone/delete", {"confirm": "gone"}).json == {"topic": "gone", "records": 1}
    assert "topic gone deleted over HTTP by 127.0.0.1:50000" in caplog.text
    assert api.get("/api/v1/topics/gone").status == 404


def test_the_brokers_own_topics_cannot_be_deleted(api: World) -> None:
    answer = api.post("/api/v1/topics/__logsvc_groups/delete", {"confirm": "__logsvc_groups"})
    assert (answer.status, answer.code) == (403, "INTERNAL_TOPIC")


def test_a_paused_group_is_resumed(api: World, caplog: pytest.LogCaptureFixture) -> None:
    # Given a group whose policy pauses what has spent its attempts
    api.topic("paused")
    api.produce("paused", [RecordData(b"1")])
    part = CommitPartition(topic="paused", partition=0, offset=1, failed=[Failure(0, "ValueError: no")])
    api.ask(Commit("pauser", "", NO_MEMBER_EPOCH, [part], RetryPolicy(max_attempts=1, on_exhausted="pause")))
    assert api.get("/api/v1/groups/pauser").json["failed"] == {"paused": 1}
    # When it is resumed, then the record is tried again.
    with caplog.at_level(logging.INFO, "logsvc.listeners.api"):
        done = api.post("/api/v1/groups/pauser/resume").json
    assert done == {"group": "pauser", "breaker_closed": False, "resumed": 1}
    assert "group pauser resumed over HTTP by 127.0.0.1:50000: 1 records" in caplog.text
    assert api.get("/api/v1/groups/pauser").json["failed"] == {"waiting": 1}


def test_an_unknown_group_is_404_and_a_name_that_cannot_be_is_400(api: World) -> None:
    for target in ("/api/v1/groups/nope", "/api/v1/groups/nope/history"):
        answer = api.get(target)
        assert (answer.status, answer.code) == (404, "UNKNOWN_GROUP")
    assert api.get("/api/v1/groups/a%20b").status == 400
    assert api.post("/api/v1/groups/nope/resume").status == 404


def test_topics_and_letters_are_served_while_the_groups_log_cannot_be_read() -> None:
    # Given letters of a group, and a log of the groups that has rotted while the broker was down
    disk = SimulatedDisk()
    with world(disk=disk) as before:
        dead = failed(before, "still", "lost")
    path = "/data/__logsvc_groups-0/00000000000000000000.log"
    content = bytearray(disk.content(path))
    content[100] ^= 0xFF
    disk.set_content(path, bytes(content))
    with world(disk=disk) as after:
        # When groups are asked for, then the reason is told with what to do.
        for target in ("/api/v1/groups", "/api/v1/groups/lost", "/api/v1/redrives"):
            answer = after.get(target)
            assert (answer.status, answer.code) == (503, "PARTITION_CORRUPT")
            assert "logsvc verify" in answer.message
        # Everything else is there.
        assert "logsvc verify" in after.get("/api/v1/broker").json["groups_error"]
        assert after.get("/api/v1/topics/still").json["groups"] == []
        (pile,) = after.get("/api/v1/dead-letters").json["topics"]
        assert (pile["topic"], pile["group"], pile["letters"]) == (dead, "lost", 3)
        assert len(after.get(letters_of(dead)).json["letters"]) == 3
        assert after.post(f"/api/v1/dead-letters/{dead}/redrive").status == 503
