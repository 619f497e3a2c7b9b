"""Who may ask, and who may change something: each check alone keeps a forged request out, and each is told with what to do."""

from collections.abc import Iterator

import pytest

from logsvc_common.batch import RecordData
from tests.unit.listeners.api.world import HOST, TOKEN, Answer, World, ask_app, world

PAGES = ["/", "/console/", "/api/v1/topics", "/api/v1/session", "/api/v1/nope", "/nope", "/metrics", "/healthz"]


@pytest.fixture(scope="module")
def api() -> Iterator[World]:
    with world(hosts="logs.example, Proxy.example") as running:
        yield running


@pytest.fixture
def victim(api: World) -> Iterator[str]:
    """A topic with a record, which a forged request would delete; it must be there afterwards."""
    if "victim" not in api.logs.topics:
        api.topic("victim")
        api.produce("victim", [RecordData(b"1")])
    yield "/api/v1/topics/victim/delete"
    assert "victim" in api.logs.topics


def delete(api: World, target: str, **headers: str) -> Answer:
    return api.post(target, {"confirm": "victim"}, **headers)


@pytest.mark.parametrize("page", PAGES)
def test_every_answer_keeps_browsers_from_guessing_framing_and_telling(api: World, page: str) -> None:
    headers = api.get(page).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control-")]


def test_answers_of_the_api_are_not_stored(api: World) -> None:
    for page in ("/api/v1/topics", "/api/v1/session", "/api/v1/topics/nope", "/api/v1/openapi.json"):
        assert api.get(page).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "localhost.:9293",
        "127.0.0.1",
        "127.1.2.3:80",
        "[::1]:9293",
        "[::1]",
        "logs.example:9293",
        "proxy.example",
    ],
)
def test_names_of_this_machine_and_allowed_ones_are_answered(api: World, host: str) -> None:
    assert api.get("/api/v1/topics", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:9293",
        "192.0.2.1",
        "[::2]",
        "[::1].evil.example",
        "[::1",
        "localhost:evil.example",
        "localhost:1:2",
        "127.0.0.1@evil.example",
        "[",
        ":",
        "a" * 300,
        "",
    ],
)
@pytest.mark.parametrize("page", ["/", "/console/", "/api/v1/topics", "/api/v1/session", "/nope"])
def test_a_name_rebound_to_this_machine_reads_nothing(api: World, host: str, page: str) -> None:
    answer = api.get(page, host=host)
    assert (answer.status, answer.code) == (403, "HOST_NOT_ALLOWED")
    assert "--http-allowed-hosts" in answer.message


@pytest.mark.parametrize("page", ["/metrics", "/healthz"])
@pytest.mark.parametrize("host", ["192.0.2.1:9293", "[2001:db8::1]:9293", "127.0.0.1", "localhost:1", "logs.example:9293"])
def test_a_scraper_may_come_by_any_address_and_by_names_that_are_allowed(api: World, page: str, host: str) -> None:
    assert api.get(page, host=host).status == 200


@pytest.mark.parametrize("page", ["/metrics", "/healthz"])
def test_a_rebound_name_reads_no_names_of_topics_and_groups_from_a_scrape(api: World, page: str) -> None:
    answer = api.get(page, host="evil.example:9293")
    assert (answer.status, answer.code) == (403, "HOST_NOT_ALLOWED")


def test_whether_it_is_ready_is_told_under_any_name(api: World) -> None:
    assert api.get("/readyz", host="balancer.example").status in (200, 503)


@pytest.mark.parametrize("page", ["/", "/console/", "/api/v1/topics", "/api/v1/topics/t/records?key=k", "/metrics"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("dest", ["empty", "image", "iframe", "script"])
def test_another_sites_page_does_not_even_cause_a_reading(api: World, page: str, site: str, dest: str) -> None:
    answer = api.get(page, sec_fetch_site=site, sec_fetch_dest=dest, sec_fetch_mode="no-cors")
    assert (answer.status, answer.code) == (403, "SITE_NOT_ALLOWED")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
def test_a_link_to_the_console_can_be_followed_from_anywhere(api: World, site: str) -> None:
    assert api.get("/console/", sec_fetch_site=site, sec_fetch_dest="document", sec_fetch_mode="navigate").status == 200


def test_the_token_is_told_to_the_page_and_opens_the_door(api: World) -> None:
    assert api.get("/api/v1/session").json == {"writes": True, "token": TOKEN}
    api.topic("mine")
    assert api.post("/api/v1/topics/mine/delete", {"confirm": "mine"}).status == 200


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xff" * 23])
def test_without_the_token_nothing_changes(api: World, victim: str, token: str) -> None:
    answer = delete(api, victim, x_logsvc_token=token)
    assert (answer.status, answer.code) == (403, "TOKEN_INVALID")
    assert "/api/v1/session" in answer.message


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:9293",
        "http://127.0.0.1",
        "http://127.0.0.1:9294",
        f"http://{HOST}.evil.example",
        f"ftp://{HOST}",
        HOST,
    ],
)
def test_a_page_from_elsewhere_changes_nothing(api: World, victim: str, origin: str) -> None:
    answer = delete(api, victim, origin=origin)
    assert (answer.status, answer.code) == (403, "ORIGIN_NOT_ALLOWED")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x"])
def test_a_request_that_the_browser_says_is_foreign_changes_nothing(api: World, victim: str, site: str) -> None:
    # As a form of another page would be: no Origin, but fetch metadata.
    answer = delete(api, victim, origin="", sec_fetch_site=site, sec_fetch_dest="document")
    assert (answer.status, answer.code) == (403, "ORIGIN_NOT_ALLOWED")


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"]
)
def test_what_a_form_could_send_changes_nothing(api: World, victim: str, kind: str) -> None:
    answer = delete(api, victim, content_type=kind)
    assert (answer.status, answer.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_rebound_name_changes_nothing_even_with_the_token(api: World, victim: str) -> None:
    answer = delete(api, victim, host="evil.example:9293", origin="http://evil.example:9293")
    assert (answer.status, answer.code) == (403, "HOST_NOT_ALLOWED")


def test_a_script_without_a_browsers_headers_may_change_things(api: World) -> None:
    api.topic("scripted")
    answer = api.post(
        "/api/v1/topics/scripted/delete", {"confirm": "scripted"}, origin="", content_type="Application/JSON; charset=utf-8"
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    "headers", [{"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"origin": f"https://{HOST}"}]
)
def test_the_console_itself_may_change_things(api: World, headers: dict[str, str]) -> None:
    name = "own-" + "".join(headers)
    if name not in api.logs.topics:
        api.topic(name)
    assert api.post(f"/api/v1/topics/{name}/delete", {"confirm": name}, **headers).status == 200


def test_who_leaves_before_the_body_is_whole_changes_nothing_and_leaves_no_trace_in_the_log(
    api: World, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"host": HOST, "content-type": "application/json", "x-logsvc-token": TOKEN}
    api.run(ask_app(api.app, "POST", victim, headers, b'{"confirm": "victim"}', leaves=True))
    assert caplog.records == []


@pytest.mark.parametrize("size", [65_537, 1 << 20])
def test_a_body_over_the_limit_is_refused_with_the_limit(api: World, victim: str, size: int) -> None:
    answer = api.post(victim, raw=b" " * size)
    assert (answer.status, answer.code) == (413, "BODY_TOO_LARGE")
    assert "65536 bytes" in answer.message


def test_without_the_switch_there_is_no_token_and_nothing_changes() -> None:
    with world(writes=False) as api:
        api.topic("kept")
        assert api.get("/api/v1/session").json == {"writes": False, "token": None}
        for target in (
            "/topics/kept/delete",
            "/groups/g/resume",
            "/dead-letters/d/purge",
            "/dead-letters/d/redrive",
            "/redrives/1/cancel",
        ):
            answer = api.post(f"/api/v1{target}", {"confirm": "kept"})
            assert (answer.status, answer.code) == (403, "WRITES_DISABLED")
            assert "--console-writes" in answer.message
        assert "kept" in api.logs.topics


def test_a_get_never_changes_anything(api: World, victim: str) -> None:
    for target in (victim, "/api/v1/groups/g/resume", "/api/v1/dead-letters/d/purge", "/api/v1/redrives/1/cancel"):
        assert api.get(target, x_logsvc_token=TOKEN).status == 405
