"""The page and what it asks for, to this machine alone. GET changes nothing; POST has a guard (guard.py).

/                  the page          /api/stream    snapshots, once a second (server-sent events)
/static/NAME       its parts         /api/snapshot  one of them
/api/requests      slow and failed   /api/history   series over time
/api/events        what happened     /api/logs      what is new in the nodes' logs
/api/actions       what may be done  /api/scale     POST: so many application servers
/metrics           for a Prometheus  /api/drill     POST: a drill, to its verdict
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from outgrow.dashboard import logs, metrics
from outgrow.dashboard.actions import Actions, Drill, Scale, possible_drills
from outgrow.dashboard.gather import Gatherer
from outgrow.dashboard.guard import Guard
from outgrow.dashboard.stream import Stream
from outgrow.errors import Misuse
from outgrow.runtime.asgi import ASGIScope, Receive, Send, is_local
from outgrow.runtime.edge.etag import ETag

JSON = "application/json"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HISTORY_S_MAX = 7200
POINTS_MAX = 600
PAGE_MAX = 200
SENT_BYTES_MAX = 1024
SCALE, DRILL = "/api/scale", "/api/drill"
WORST = ("p50", "p95", "p99", "query_p99", "wait_p99", "errors")
WORST_OF_EACH = ("p99:", "state:")
"""Of these series the highest value of a step is shown: a mean would hide what matters."""

SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Query(dict[str, str]):
    """The parameters of a request; what makes no sense counts as not given."""

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 0 to `most`."""
        text = self.get(name, "")
        return min(most, int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else default


class File(NamedTuple):
    """A part of the page."""

    content_type: str
    body: bytes
    tag: ETag


class App:
    """The ASGI application of one fleet's dashboard."""

    def __init__(self, directory: Path, log_folder: Path, *, actions: bool = False) -> None:
        self.stream = Stream(self._render)
        self._gatherer = Gatherer(directory, looked=self.stream.publish)
        self._guard = Guard(enabled=actions)
        self._actions = Actions(
            directory, log_folder, lambda kind, text: self._gatherer.events.add(time.time(), kind, text)
        )
        self._logs = log_folder
        self._files = files()
        self._answers: Mapping[str, Callable[[Query], bytes]] = {
            "/api/snapshot": lambda query: self.stream.current(),
            "/api/history": self._history,
            "/api/requests": self._requests,
            "/api/events": self._events,
            "/api/logs": self._log_lines,
        }

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Answer one request, to a program or a person on this machine."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http":
            return
        elif scope["method"] == "POST" and scope["path"] in (SCALE, DRILL):
            await self._act(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD") or scope["path"] in (SCALE, DRILL):
            await _answer(scope, send, 405, "text/plain", b"Method Not Allowed", ((b"allow", b"GET, HEAD"),))
        elif not _may_ask(scope):
            await _answer(scope, send, 403, "text/plain", b"This dashboard answers its own machine alone.")
        elif scope["path"] == "/api/stream" and scope["method"] == "GET":
            await self._stream(scope, receive, send)
        elif scope["path"] == "/api/actions":
            headers = ((b"cache-control", b"no-store"), (b"set-cookie", self._guard.cookie(scope)))
            await _answer(scope, send, 200, JSON, self._possible(scope), headers)
        elif scope["path"] == "/metrics":
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            content_type, text = metrics.exposition(self._gatherer.status, self._gatherer.cache.now, accept)
            await _answer(scope, send, 200, content_type, text, ((b"cache-control", b"no-store"),))
        elif (answer := self._answers.get(scope["path"])) is not None:
            query = Query(parse_qsl(scope["query_string"].decode("latin-1")))
            await _answer(scope, send, 200, JSON, answer(query), ((b"cache-control", b"no-store"),))
        else:
            await self._file(scope, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Gather from start to end."""
        await receive()
        gathering = asyncio.create_task(self._gatherer.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._actions.close()
        gathering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gathering
        self._gatherer.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _act(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Begin what is asked for; the snapshots tell how it goes."""
        why = "this dashboard answers its own machine alone" if not _may_ask(scope) else ""
        if why := why or self._guard.refusal(scope):
            await _answer(scope, send, 403, "text/plain", f"Refused: {why}.".encode())
            return
        try:
            self._begin(scope["path"], await _body(receive))
        except msgspec.DecodeError as error:
            await _answer(scope, send, 400, "text/plain", f"Not a request: {error}".encode())
        except Misuse as error:
            await _answer(scope, send, 409, "text/plain", error.message.encode())
        else:
            self.stream.publish()
            await _answer(scope, send, 202, JSON, msgspec.json.encode(self._actions.now))

    def _begin(self, path: str, body: bytes) -> None:
        if path == SCALE:
            self._actions.scale(msgspec.json.decode(body, type=Scale))
        else:
            self._actions.drill(msgspec.json.decode(body, type=Drill))

    def _possible(self, scope: ASGIScope) -> bytes:
        """What this caller may do, and the token for it."""
        why = self._guard.closed_to(scope)
        token = "" if why else self._guard.token
        return msgspec.json.encode(
            {"allowed": not why, "why": why, "token": token, "drills": possible_drills()}
        )

    async def _stream(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if self.stream.full:
            retry = ((b"retry-after", b"5"),)
            await _answer(scope, send, 503, "text/plain", b"Too many pages are open.", retry)
            return
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), *SECURITY]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.stream.serve(receive, send)

    async def _file(self, scope: ASGIScope, send: Send) -> None:
        file = self._files.get(scope["path"])
        if file is None:
            await _answer(scope, send, 404, "text/plain", b"Not Found")
            return
        headers = ((b"cache-control", b"no-cache"), (b"etag", str(file.tag).encode()))
        known = any(name == b"if-none-match" and file.tag.held(value) for name, value in scope["headers"])
        await _answer(
            scope, send, 304 if known else 200, file.content_type, b"" if known else file.body, headers
        )

    def _render(self) -> bytes:
        return msgspec.json.encode(self._gatherer.snapshot(self._actions.now))

    def _history(self, query: Query) -> bytes:
        seconds = query.number("seconds", 300, HISTORY_S_MAX) or 300
        step_s = -(-seconds // POINTS_MAX)
        until = int(time.time()) // step_s * step_s - 1  # the step that is under way is not known yet
        names = (
            query.get("series", "").split(",") if query.get("series") else list(self._gatherer.history.series)
        )
        worst = [name for name in names if name in WORST or name.startswith(WORST_OF_EACH)]
        curves = self._gatherer.history.read(
            names, since=until - seconds + 1, until=until, step_s=step_s, worst=worst
        )
        return msgspec.json.encode(curves)

    def _requests(self, query: Query) -> bytes:
        page = self._gatherer.requests.page(
            reason=query.get("reason", ""),
            search=query.get("search", ""),
            order=query.get("order", "newest"),
            upto=query.number("upto", 0, 10**15),
            offset=query.number("offset", 0, 10**9),
            limit=query.number("limit", 50, PAGE_MAX),
        )
        return page.as_json()

    def _events(self, query: Query) -> bytes:
        after = query.number("after", 0, 10**15)
        return msgspec.json.encode([event for event in self._gatherer.events.kept if event.id > after])

    def _log_lines(self, query: Query) -> bytes:
        cursor: dict[str, int] = {}
        with contextlib.suppress(msgspec.DecodeError):
            cursor = msgspec.json.decode(query.get("cursor") or "{}", type=dict[str, int])
        tail = logs.tail(
            self._logs,
            cursor,
            chosen=query.get("node", ""),
            search=query.get("search", ""),
            access=query.get("access") == "1",
        )
        return msgspec.json.encode({"nodes": logs.nodes(self._logs), **msgspec.structs.asdict(tail)})


def files() -> dict[str, File]:
    """The page's parts by their paths, read once."""
    found: dict[str, File] = {}
    for each in resources.files("outgrow.dashboard").joinpath("static").iterdir():
        kind = TYPES.get(Path(each.name).suffix)
        if kind is not None:
            body = each.read_bytes()
            path = "/" if each.name == "index.html" else f"/static/{each.name}"
            found[path] = File(kind, body, ETag.of(body))
    return found


def _may_ask(scope: ASGIScope) -> bool:
    """A direct caller on this machine that calls it by its own name, and no page of somebody else's."""
    if not is_local(scope):
        return False
    sites = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
    return all(site in (b"same-origin", b"none") for site in sites) or scope["path"] == "/"


async def _body(receive: Receive) -> bytes:
    """What was sent; what is too long is cut, and is no JSON then."""
    body, more = b"", True
    while more and len(body) <= SENT_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body[:SENT_BYTES_MAX]


async def _answer(
    scope: ASGIScope,
    send: Send,
    status: int,
    content_type: str,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    head: list[tuple[bytes, bytes]] = [(b"content-type", content_type.encode()), *SECURITY, *headers]
    if status != 304:
        head.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
