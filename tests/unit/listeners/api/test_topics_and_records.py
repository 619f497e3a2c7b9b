"""Topics and records over HTTP: what there is, page by page, from every kind of beginning; what is not there."""

import base64
from collections.abc import Iterator

import pytest

from logsvc.listeners.api import scan
from logsvc.listeners.http import DegradedPartition
from logsvc.testing.simulated_disk import SimulatedDisk
from logsvc_common.batch import CODECS, RecordData, encode
from logsvc_common.errors import StorageFailed
from logsvc_common.keys import partition_for
from logsvc_common.messages import Produce, ProducePartition
from tests.unit.listeners.api.world import World, world


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with world() as running:
        yield running


def numbered(count: int, first: int = 0) -> list[RecordData]:
    return [RecordData(b"v%d" % n, b"k%d" % (n % 3), 1_000 + n) for n in range(first, first + count)]


def records_of(topic: str, partition: int = 0) -> str:
    return f"/api/v1/topics/{topic}/partitions/{partition}/records"


def test_a_topic_is_listed_with_its_records_and_size(api: World) -> None:
    # Given a topic with five records in two partitions
    api.topic("listed", 2)
    api.produce("listed", numbered(3))
    api.produce("listed", numbered(2), partition=1)
    # When the topics are listed, then it is one of them, and the broker's own is marked.
    topics = {topic["name"]: topic for topic in api.get("/api/v1/topics").json["topics"]}
    found = topics["listed"]
    assert (found["partitions"], found["records"], found["state"], found["internal"]) == (2, 5, "online", False)
    assert found["size_bytes"] > 0


def test_a_topic_tells_its_partitions_with_the_times_of_their_first_and_last_records(api: World) -> None:
    api.topic("detail", 2, retention_ms="-1")
    api.produce("detail", [RecordData(b"v", timestamp_ms=time_ms) for time_ms in (1_000, 2_000, 3_000)])
    found = api.get("/api/v1/topics/detail").json
    assert found["config"]["retention.ms"] == "-1"
    first, second = found["partition_list"]
    assert (first["start_offset"], first["end_offset"], first["segments"], first["reason"]) == (0, 3, 1, "")
    assert (first["first_timestamp_ms"], first["last_timestamp_ms"]) == (1_000, 3_000)
    assert (second["first_timestamp_ms"], second["last_timestamp_ms"]) == (None, None)


def test_a_topic_names_the_groups_that_read_it(api: World) -> None:
    api.topic("read")
    api.produce("read", numbered(2))
    api.fail("read", "its-group", {0: "ValueError: no"})
    assert api.get("/api/v1/topics/read").json["groups"] == ["its-group"]


def test_without_an_offset_the_newest_records_are_shown(api: World) -> None:
    api.topic("newest")
    api.produce("newest", numbered(10))
    page = api.get(f"{records_of('newest')}?limit=3").json
    assert [record["offset"] for record in page["records"]] == [7, 8, 9]
    assert (page["next_offset"], page["previous_offset"], page["complete"]) == (10, 4, True)


def test_pages_lead_from_the_start_to_the_end_and_back(api: World) -> None:
    api.topic("pages")
    for first in range(0, 10, 2):
        api.produce("pages", numbered(2, first))
    seen, offset, complete = [], 0, False
    while not complete:
        page = api.get(f"{records_of('pages')}?offset={offset}&limit=3").json
        seen += [record["value"]["text"] for record in page["records"]]
        offset, complete = page["next_offset"], page["complete"]
    assert seen == [f"v{n}" for n in range(10)]
    assert api.get(f"{records_of('pages')}?offset=4&limit=3").json["previous_offset"] == 1
    assert api.get(f"{records_of('pages')}?offset=0").json["previous_offset"] is None


@pytest.mark.parametrize(
    ("beginning", "first"), [("offset=4", 4), ("offset=-3", 7), ("offset=-99", 0), ("time_ms=1006", 6), ("time_ms=0", 0)]
)
def test_a_page_begins_at_an_offset_or_a_time(api: World, beginning: str, first: int) -> None:
    topic = "begin-" + beginning.replace("=", "-")
    api.topic(topic)
    for n in range(10):
        api.produce(topic, numbered(1, n))
    assert api.get(f"{records_of(topic)}?{beginning}").json["records"][0]["offset"] == first


def test_the_end_is_an_empty_page_and_a_time_to_come_is_too(api: World) -> None:
    api.topic("the-end")
    api.produce("the-end", numbered(3))
    for beginning in ("offset=3", "time_ms=99999"):
        page = api.get(f"{records_of('the-end')}?{beginning}").json
        assert (page["records"], page["next_offset"], page["complete"]) == ([], 3, True)


@pytest.mark.parametrize("offset", [4, 99_999, 2**62, 2**63 - 1])
def test_an_offset_that_is_not_there_is_404_and_says_which_are(api: World, offset: int) -> None:
    topic = f"beyond-{offset}"
    api.topic(topic)
    api.produce(topic, numbered(3))
    answer = api.get(f"{records_of(topic)}?offset={offset}")
    assert (answer.status, answer.code) == (404, "OFFSET_OUT_OF_RANGE")
    assert "holds offsets 0 to 3" in answer.message


def test_records_of_a_key_are_found_in_the_partition_a_producer_puts_them_into(api: World) -> None:
    api.topic("by-key", 4)
    partition = partition_for(b"k1", 4)
    api.produce("by-key", numbered(9), partition=partition)
    for target in ("/api/v1/topics/by-key/records?key=k1", "/api/v1/topics/by-key/records?key_base64=azE="):
        page = api.get(target).json
        assert page["partition"] == partition
        assert [record["offset"] for record in page["records"]] == [1, 4, 7]
        assert page["complete"] is True


def test_a_search_for_a_key_stops_at_its_bound_and_goes_on_from_there(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a partition larger than what one page may look at
    monkeypatch.setattr(scan, "SCANNED_BYTES_MAX", 300)
    api.topic("bounded")
    for n in range(0, 40, 2):
        api.produce("bounded", numbered(2, n))
    # When one goes on from where each page stopped
    found, offset, pages, complete = [], 0, 0, False
    while not complete:
        page = api.get(f"{records_of('bounded')}?key=k2&offset={offset}&limit=500").json
        assert page["scanned_to"] == page["next_offset"] > offset
        found += [record["offset"] for record in page["records"]]
        offset, complete, pages = page["next_offset"], page["complete"], pages + 1
    # Then every record of the key is found, in several pages.
    assert found == [n for n in range(40) if n % 3 == 2]
    assert pages > 3


def test_a_search_takes_no_longer_than_its_time(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SCAN_MS_MAX", -1)
    monkeypatch.setattr(scan, "CLOCK_EVERY_RECORDS", 1)
    api.topic("slow")
    api.produce("slow", numbered(10))
    page = api.get(f"{records_of('slow')}?key=k2&offset=0").json
    assert (page["next_offset"], page["complete"]) == (1, False)


def test_a_page_of_large_values_ends_early(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ANSWER_BYTES_MAX", 100_000)
    api.topic("large")
    api.produce("large", [RecordData(b"x" * 40_000) for _ in range(6)])
    page = api.get(f"{records_of('large')}?offset=0").json
    assert [record["offset"] for record in page["records"]] == [0, 1]
    assert (page["next_offset"], page["complete"]) == (2, False)


def test_text_is_text_bytes_are_base64_and_long_ones_are_cut(api: World) -> None:
    api.topic("shown")
    long = "ä".encode() * 40_000
    api.produce(
        "shown",
        [
            RecordData("grüße\t\n".encode(), b"\xff\x00", 5, [("h", b"1"), ("h", None), ("bad", b"\x00")]),
            RecordData(None, None, 6),
            RecordData(b"x" + long, b"", 7),
        ],
    )
    first, second, third = api.get(f"{records_of('shown')}?offset=0").json["records"]
    assert first["value"] == {"text": "grüße\t\n"}
    assert first["key"] == {"base64": base64.b64encode(b"\xff\x00").decode()}
    assert first["headers"] == [["h", {"text": "1"}], ["h", None], ["bad", {"base64": "AA=="}]]
    assert (second["key"], second["value"]) == (None, None)
    assert third["value"]["cut_bytes"] == 80_001
    assert third["value"]["text"] == "x" + "ä" * 32_767  # the cut went through a character
    assert third["key"] == {"text": ""}


def test_a_value_is_downloaded_whole_and_can_do_no_harm_in_a_browser(api: World) -> None:
    api.topic("value")
    value = b"<script>alert(1)</script>" + bytes(100_000)
    api.produce("value", [RecordData(b"other"), RecordData(value), RecordData(None, b"k")])
    answer = api.get(f"{records_of('value')}/1/value")
    assert (answer.status, answer.body) == (200, value)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="value-0-1.bin"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.get(f"{records_of('value')}/2/value").status == 204
    assert (answer := api.get(f"{records_of('value')}/3/value")).status == 404
    assert answer.code == "OFFSET_OUT_OF_RANGE"
    assert answer.message.endswith("it holds 0 to 2")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_are_shown(api: World, codec: str) -> None:
    api.topic(f"packed-{codec}")
    api.produce(f"packed-{codec}", numbered(50), codec=CODECS[codec])
    page = api.get(f"{records_of(f'packed-{codec}')}?offset=48").json
    assert [record["value"]["text"] for record in page["records"]] == ["v48", "v49"]


def test_a_batch_that_inflates_enormously_is_refused_and_the_next_one_can_be_read(
    api: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "INFLATED_BYTES_MAX", 1 << 20)
    api.topic("bomb")
    api.produce("bomb", [RecordData(bytes(8 << 20))], codec=CODECS["zstd"])
    api.produce("bomb", numbered(1))
    answer = api.get(f"{records_of('bomb')}?offset=0")
    assert (answer.status, answer.code) == (413, "RECORD_TOO_LARGE")
    assert "go on from offset 1" in answer.message
    assert len(api.get(f"{records_of('bomb')}?offset=1").json["records"]) == 1


def test_of_a_million_records_in_one_batch_only_those_shown_are_made(api: World) -> None:
    # Given a batch of many tiny records, compressed to a few KiB
    api.topic("many")
    api.produce("many", [RecordData(None)] * 200_000, codec=CODECS["zstd"])
    page = api.get(f"{records_of('many')}?offset=150000&limit=2").json
    assert [record["offset"] for record in page["records"]] == [150_000, 150_001]
    assert page["next_offset"] == 150_002


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/v1/topics/nope", 404, "UNKNOWN_TOPIC"),
        ("/api/v1/topics/nope/partitions/0/records", 404, "UNKNOWN_TOPIC"),
        ("/api/v1/topics/nope/records?key=a", 404, "UNKNOWN_TOPIC"),
        ("/api/v1/topics/there/partitions/9/records", 404, "UNKNOWN_PARTITION"),
        ("/api/v1/topics/there/partitions/-1/records", 404, "UNKNOWN_PARTITION"),
        ("/api/v1/topics/there/partitions/0/records/0/value", 404, "OFFSET_OUT_OF_RANGE"),
        ("/api/v1/topics/there/partitions/x/records", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/99999999999999999999/records", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/%2e%2e%2fetc/records?key=a", 404, "NOT_FOUND"),
        ("/api/v1/topics/a%20b", 400, "INVALID_TOPIC_NAME"),
        ("/api/v1/topics/there/records", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/records?key=a&key_base64=YQ==", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/records?key_base64=*", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?limit=0", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?limit=501", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?limit=5&limit=6", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?offset=1e3", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?offset=", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?offset=0&time_ms=0", 400, "INVALID_REQUEST"),
        ("/api/v1/topics/there/partitions/0/records?ofset=1", 400, "INVALID_REQUEST"),
        ("/api/v1/nope", 404, "NOT_FOUND"),
        ("/api", 404, "NOT_FOUND"),
        ("/nope", 404, "NOT_FOUND"),
    ],
)
def test_what_cannot_be_is_told_in_json_with_the_right_status(api: World, target: str, status: int, code: str) -> None:
    if "there" not in api.logs.topics:
        api.topic("there")
    answer = api.get(target)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_method_that_is_not_taken_is_405_and_says_which_is(api: World, method: str) -> None:
    answer = api.request(method, "/api/v1/topics", {"content-type": "application/json"})
    assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["allow"]


def test_the_broker_tells_how_it_is(api: World) -> None:
    broker = api.get("/api/v1/broker").json
    assert (broker["status"], broker["started_ms"], broker["writes"]) == ("ok", 1_000, True)
    assert broker["topics"] == len(api.logs.topics)
    assert broker["memory_bytes"] > 1 << 20
    assert broker["disk"]["size_bytes"] >= broker["disk"]["free_bytes"] > 0


def test_a_partition_that_is_not_online_is_named_and_why(api: World) -> None:
    api.degraded = [DegradedPartition("t", partition, "failed", "fsync: EIO") for partition in range(150)]
    broker = api.get("/api/v1/broker").json
    api.degraded = []
    assert (broker["status"], broker["degraded_partition_count"]) == ("degraded", 150)
    assert broker["degraded_partitions"][0] == {"topic": "t", "partition": 0, "state": "failed", "reason": "fsync: EIO"}
    assert len(broker["degraded_partitions"]) == 100


def test_the_last_hour_has_one_time_for_each_value(api: World) -> None:
    history = api.get("/api/v1/broker/history").json
    assert {len(series) for series in history["series"].values()} == {len(history["times_ms"])}


def test_a_partition_whose_disk_failed_says_so_and_the_others_are_read() -> None:
    # Given a topic of two partitions, one of which fails when it is written
    disk = SimulatedDisk()
    with world(disk=disk) as api:
        api.topic("half", 2)
        api.produce("half", numbered(3))
        api.produce("half", numbered(3), partition=1)
        disk.fail("datasync", path_part="half-0")
        (result,) = api.ask(Produce([ProducePartition("half", 0)]), [encode(numbered(1))]).results
        assert result.error_code == StorageFailed.code
        # When it is looked at, then its state and the reason are told, and reading it is refused.
        topic = api.get("/api/v1/topics/half").json
        assert topic["state"] == "failed"
        assert [part["state"] for part in topic["partition_list"]] == ["failed", "online"]
        assert "fsync failed" in topic["partition_list"][0]["reason"]
        answer = api.get(f"{records_of('half', 0)}?offset=0")
        assert (answer.status, answer.code) == (503, "STORAGE_FAILED")
        assert len(api.get(f"{records_of('half', 1)}").json["records"]) == 3


def test_records_before_a_damaged_batch_are_shown_and_the_damage_is_told_when_it_is_reached() -> None:
    # Given three batches, the second of which has rotted on the disk while the broker was down
    disk = SimulatedDisk()
    batches = [encode(numbered(3, first)) for first in (0, 3, 6)]
    with world(disk=disk) as api:
        api.topic("rot")
        for batch in batches:
            api.produce_batch("rot", batch)
    path = "/data/rot-0/00000000000000000000.log"
    content = bytearray(disk.content(path))
    content[len(batches[0]) + len(batches[1]) - 1] ^= 0xFF
    disk.set_content(path, bytes(content))
    with world(disk=disk) as api:
        # When one reads from the start
        page = api.get(f"{records_of('rot')}?offset=0").json
        # Then the good records come first, and behind them the reason why there are no more; those after it can be read.
        assert [record["offset"] for record in page["records"]] == [0, 1, 2]
        assert (page["next_offset"], page["complete"]) == (3, False)
        answer = api.get(f"{records_of('rot')}?offset=3")
        assert answer.status == 503
        assert answer.code in ("CORRUPT_BATCH", "PARTITION_CORRUPT")
        assert len(api.get(f"{records_of('rot')}?offset=6").json["records"]) == 3
