"""Who may ask, and who may change something.

The broker listens on this machine only, so whoever reaches the port may read. What remains is the user's own browser: a page
from elsewhere may send requests to 127.0.0.1, and with a name that it lets point there (DNS rebinding) even read the answers.
Every request is therefore checked:

* `Host` is a name of this machine, the host that was bound, or one that was allowed by a setting: a rebound name is none.
  Scrapers and health checks may come by any address too: no name can be rebound to be one. `/readyz` tells no names, and
  asks for none.
* `Sec-Fetch-Site`, when there is one, is not another page's, unless a person follows its link: readings cost, so a foreign
  page may not even cause them.
* No answer carries CORS headers, and all say same-origin: a foreign page cannot read them.

and one that changes something also for

* writes being switched on at all;
* `Origin`, when there is one, being the page's own host; `Sec-Fetch-Site`, when there is one, being `same-origin` or `none`;
* `Content-Type: application/json`, which a foreign page's form cannot send;
* `X-Logsvc-Token`, which is made at every start and told at `/session`, that a foreign page cannot read. A custom header also
  makes a browser ask first (a CORS preflight), and nothing here says yes.
"""

import hmac
import ipaddress
import re
from collections.abc import Collection

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logsvc.listeners.api.backend import Backend
from logsvc.listeners.api.errors import Refusal, error_response
from logsvc_common.errors import InvalidRequest

TOKEN_HEADER = "x-logsvc-token"
OPEN_PATH = "/readyz"
SCRAPED_PATHS = frozenset(("/metrics", "/healthz"))
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(:[0-9]{0,5})?")

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}

RAW_HEADERS = tuple((name.encode(), value.encode()) for name, value in HEADERS.items())


def check_host(headers: Headers, allowed: Collection[str], *, any_address: bool = False) -> None:
    """Raise Refusal unless the request was sent to a name of this broker, or to `any_address`.

    The port may be any: tunnels change it.
    """
    hosts = headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    name = _name_of(host)
    if name in allowed or name == "localhost":
        return
    address = _address(name)
    if address is not None and (any_address or address.is_loopback):
        return
    raise Refusal(
        403,
        "HOST_NOT_ALLOWED",
        f"this broker does not answer to the host {host[:100]!r}; ask for it as 127.0.0.1 or localhost, or start it with "
        f"--http-allowed-hosts (LOGSVC_HTTP_ALLOWED_HOSTS) naming the host if it is meant to be reached so",
    )


def check_site(headers: Headers) -> None:
    """Raise Refusal when the browser says that another site's page makes this request; to follow a link from there is fine."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-dest") != "document":
        raise Refusal(403, "SITE_NOT_ALLOWED", "a page of another site may not ask this broker; use the console itself")


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; nothing for what is no such header."""
    found = _HOST.fullmatch(host.strip().lower())
    return "" if found is None else (found["address"] or found["name"]).removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def check_write(request: Request, backend: Backend) -> None:
    """Raise Refusal unless this request may change something."""
    headers = request.headers
    if not backend.writes:
        raise Refusal(
            403,
            "WRITES_DISABLED",
            "this broker's HTTP API is read-only; start it with `logsvc serve --console-writes` to change that",
        )
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
        raise Refusal(403, "ORIGIN_NOT_ALLOWED", f"a page of {origin[:100]!r} may not change anything on {host[:100]!r}")
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        raise Refusal(
            403, "ORIGIN_NOT_ALLOWED", f"a {site[:100]!r} request may not change anything here; use the console itself"
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be JSON: send it with Content-Type: application/json")
    token = headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(token.encode("latin-1"), backend.token.encode()):
        raise Refusal(
            403,
            "TOKEN_INVALID",
            "send the header X-Logsvc-Token with the token from GET /api/v1/session; it changes at every start",
        )


class Confirm(msgspec.Struct, forbid_unknown_fields=True):
    """`confirm` is the name of what is to go."""

    confirm: str


def check_confirm(body: Confirm, name: str) -> None:
    """Raise InvalidRequest unless `body` repeats `name`: what throws something away is asked for twice."""
    if body.confirm != name:
        raise InvalidRequest(f'nothing was done: to throw it away for good, send {{"confirm": "{name[:300]}"}}')


class Guard:
    """The whole application behind the host check, with the headers that keep a browser from doing harm on every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["path"] != OPEN_PATH:
            try:
                headers = Headers(scope=scope)
                check_host(headers, self._hosts, any_address=scope["path"] in SCRAPED_PATHS)
                check_site(headers)
            except Refusal as refusal:
                await error_response(refusal)(scope, receive, send_guarded)
                return
        await self._app(scope, receive, send_guarded)
