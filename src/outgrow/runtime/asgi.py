"""The one middleware, pure ASGI, around the whole application.

    request -> own paths? --yes--> /health  /health/deep  /metrics  /metrics/requests  /metrics/keys
                 | no
               bookmark and trace from the headers -> Scope -> (session) -> application
                                                                  |
    response <- bookmark header, cookie <- errors to answers <----+
                                                                  v
                                              request_finished: metrics, access log, trace

What it costs every request is counted in microseconds, so the path through it is one coroutine and
one plain function, and everything rare lives in functions of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from random import random
from time import perf_counter
from typing import Any

import msgspec

from outgrow import endpoints
from outgrow.errors import LostWrite
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Signer
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from outgrow.runtime.routes import Routes
from outgrow.runtime.scope import Scope
from outgrow.runtime.sessions import SessionMiddleware, Sessions
from outgrow.runtime.telemetry import tracecontext
from outgrow.runtime.travel import COOKIE, HEADER, SEEN, Carrier, cookie_values, stamped

ASGIScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]
Exposition = Callable[[str], tuple[str, bytes]]
"""Takes the Accept header; returns content type and body (telemetry.Telemetry.exposition)."""

Recent = Callable[[bytes], bytes]
"""Takes the query string; returns JSON (telemetry.Telemetry.recent)."""

COOKIE_HEADER_BYTES_MAX = 16_384
RETRY_AFTER_S = 1
LOST_WRITE = "urn:outgrow:lost-write"
LOST_WRITE_DETAIL = (
    "A failure of the database has lost something that you had written or seen. Look at what is there, and "
    "repeat what is missing."
)
CLIENT_CLOSED_REQUEST = 499
"""The caller went away before the answer (nginx's number); it is only ever counted, never sent."""

_WANTED = frozenset({HEADER, b"cookie", b"traceparent", b"tracestate"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})

logger = logging.getLogger("outgrow.request")


class Middleware:
    """Opens a Scope for each request, and answers what belongs to the process itself.

    Put it outermost. `exposition` renders the metrics; without it there is no /metrics. Its cookie
    lives as long as the signer accepts the token: `bookmark_lifetime_s`. With `answers_errors` off,
    an error that is not retryable is left to what stands further out (Starlette's debug page, an
    application's handler for 500).
    """

    def __init__(
        self,
        app: App,
        *,
        signer: Signer,
        events: Events,
        health: Health,
        telemetry: endpoints.Telemetry | None = None,
        exposition: Exposition | None = None,
        recent: Recent | None = None,
        hot_keys: Callable[[], bytes] | None = None,
        sessions: Sessions | None = None,
        bookmark_lifetime_s: float = 3600.0,
        answers_errors: bool = True,
    ) -> None:
        settings = telemetry if telemetry is not None else endpoints.Telemetry()
        self.app = app if sessions is None else SessionMiddleware(app, sessions)
        self._signer = signer
        self._started = events.request_started
        self._finished = events.request_finished
        self._answers_errors = answers_errors
        self._template = Routes().template
        self._sample = settings.trace_sample if settings.otlp_endpoint else 0.0
        self._traced = settings.otlp_endpoint is not None
        self._own = OwnPaths(health, settings, exposition, recent, hot_keys)
        self._own_paths = self._own.paths
        attributes = f"; Path=/; Max-Age={int(bookmark_lifetime_s)}; HttpOnly; SameSite=Lax"
        self._cookie_attributes = attributes.encode()

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one connection. Raises what the application raised, after it has been answered."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        path: str = scope["path"]
        root: str | None = scope.get("root_path")
        own = self._own_paths.get(path.removeprefix(root) if root else path)
        if own is not None:
            await own(scope, send)
            return

        context, carrier = self._open(scope)
        bookmark = context.bookmark
        method: str = scope["method"]
        status = 0
        ended = 0.0
        failure: str | None = None

        def tell(message: Message) -> Awaitable[None]:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                if bookmark.changed:
                    if context.unsettled is not None and (carrier or context.wrote):
                        return self._settled(message, context, scope, carrier, send)
                    message = self._stamped(message, context, scope, carrier)
            elif not message.get("more_body"):
                ended = perf_counter()
            return send(message)

        for sink in self._started.sinks:
            sink()
        token = request.current.set(context)
        try:
            await self.app(scope, receive, tell)
            if not status:
                status, failure = 500, "NoResponse"  # the server answers for it
        except BaseException as error:
            failure = type(error).__name__
            answered = bool(status)
            status = _status_of(error, status)
            if answered or status == CLIENT_CLOSED_REQUEST or not isinstance(error, Exception):
                _mark(error, context)
                raise
            if _retryable(error) or isinstance(error, LostWrite):
                await _answer(error, context, tell)
                return
            _mark(error, context)
            if self._answers_errors:
                await _answer(error, context, tell)
            raise
        finally:
            request.current.reset(token)
            seconds = (ended or perf_counter()) - context.started
            route = self._template(scope)
            for sink in self._finished.sinks:
                sink(context, method, route, status, seconds, path, failure)

    def _open(self, scope: ASGIScope) -> tuple[Scope, Carrier]:
        """The request's scope, and by what the caller has sent its bookmark."""
        token = cookie = trace = state = None
        for name, value in scope["headers"]:
            if name in _WANTED:
                if name == b"cookie":
                    cookie = value if cookie is None else cookie + b";" + value
                elif name == HEADER:
                    token = value
                elif name == b"tracestate":
                    state = value if state is None else state + b"," + value
                else:
                    trace = value if trace is None else b""  # two of them: neither counts
        bookmark, carrier = None, Carrier.NOTHING
        if token is not None or (cookie is not None and b"outgrow_" in cookie):
            bookmark = self._bookmark(token, cookie)
            carrier = Carrier.NOTHING if bookmark is None else Carrier.COOKIE
            if token is not None:
                carrier = Carrier.HEADER
                if bookmark is None:
                    bookmark = Bookmark()
                    bookmark.begin_session()
        if trace is not None and (parent := tracecontext.parse(trace)) is not None:
            sampled = self._traced and parent.sampled
            context = Scope(
                bookmark,
                trace_id=parent.trace_id,
                span_id=tracecontext.new_span_id(),
                parent_id=parent.span_id,
                sampled=sampled,
            )
            if state is not None:
                tracecontext.keep_state(context, state)
            return context, carrier
        trace_id, span_id = tracecontext.new_ids()
        sampled = self._sample > 0.0 and random() < self._sample
        return Scope(bookmark, trace_id=trace_id, span_id=span_id, sampled=sampled), carrier

    def _bookmark(self, token: bytes | None, cookie: bytes | None) -> Bookmark | None:
        """Everything that the caller's tokens prove, merged; None when they prove nothing."""
        tokens = [] if token is None else [token]
        if cookie is not None and len(cookie) <= COOKIE_HEADER_BYTES_MAX:
            tokens += cookie_values(cookie)
        merged: Bookmark | None = None
        for text in tokens:
            bookmark = self._signer.decode(text.decode("latin-1")) if text.isascii() else None
            if merged is None:
                merged = bookmark
            elif bookmark is not None:
                merged.merge(bookmark)
        if merged is not None:
            merged.changed = False  # the caller has all of it
        return merged

    def _stamped(self, message: Message, context: Scope, scope: ASGIScope, carrier: Carrier) -> Message:
        """The response's start with the session's new bookmark, where the caller keeps one."""
        cookies: tuple[bytes, ...] = ()
        if carrier is not Carrier.HEADER:
            if context.restarted:
                cookies = (COOKIE, SEEN)  # neither may go on to demand what is lost
            elif context.wrote and scope["method"] not in _SAFE_METHODS:
                cookies = (COOKIE,)
            elif carrier is Carrier.COOKIE:
                cookies = (SEEN,)
            elif not context.wrote:
                return message
        secure = b"; Secure" if scope.get("scheme") == "https" else b""
        token = self._signer.encode(context.bookmark).encode()
        return stamped(dict(message), token, cookies, self._cookie_attributes + secure)

    async def _settled(
        self, message: Message, context: Scope, scope: ASGIScope, carrier: Carrier, send: Send
    ) -> None:
        """The same, after what was read on a primary has got a position."""
        assert context.unsettled is not None
        await context.unsettled(context.bookmark)
        if context.bookmark.changed:
            message = self._stamped(message, context, scope, carrier)
        await send(message)

    async def _other(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """A WebSocket gets a scope for as long as it lives; lifespan and whatever else pass through."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        context, _ = self._open(scope)
        token = request.current.set(context)
        try:
            await self.app(scope, receive, send)
        finally:
            request.current.reset(token)


class OwnPaths:
    """/health, /health/deep and /metrics with what is below it: answered here, invisible to the application.

    Metrics and the details of deep health are for this machine alone, unless the topology says
    otherwise: see `is_local`.
    """

    def __init__(
        self,
        health: Health,
        settings: endpoints.Telemetry,
        exposition: Exposition | None,
        recent: Recent | None = None,
        hot_keys: Callable[[], bytes] | None = None,
    ) -> None:
        self._health = health
        self._public = settings.metrics == "public"
        self._exposition = exposition
        self._recent = recent
        self._hot_keys = hot_keys
        self.paths: dict[str, Callable[[ASGIScope, Send], Awaitable[None]]] = {
            "/health": self.shallow,
            "/health/deep": self.deep,
        }
        if settings.metrics != "off" and exposition is not None:
            self.paths["/metrics"] = self.metrics
        if settings.metrics != "off" and recent is not None:
            self.paths["/metrics/requests"] = self.requests
        if settings.metrics != "off" and hot_keys is not None:
            self.paths["/metrics/keys"] = self.keys

    async def shallow(self, scope: ASGIScope, send: Send) -> None:
        """The process answers."""
        if self._health.stopping:
            await _respond(scope, send, 503, "application/json", b'{"status":"stopping"}')
        else:
            await _respond(scope, send, 200, "application/json", b'{"status":"ok"}')

    async def deep(self, scope: ASGIScope, send: Send) -> None:
        """What it depends on answers, with reasons and timings for those who may see them."""
        report = await self._health.deep()
        status = 503 if report.status == "failing" or self._health.stopping else 200
        if self._public or is_local(scope):
            body = msgspec.json.encode(report)
        else:
            body = msgspec.json.encode({"status": report.status})
        await _respond(scope, send, status, "application/json", body)

    async def metrics(self, scope: ASGIScope, send: Send) -> None:
        """The figures of this process. To a stranger there is no such page."""
        if self._exposition is None or not (self._public or is_local(scope)):
            await _respond(scope, send, 404, "text/plain; charset=utf-8", b"Not Found")
            return
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        content_type, body = self._exposition(accept.decode("latin-1"))
        await _respond(scope, send, 200, content_type, body)

    async def requests(self, scope: ASGIScope, send: Send) -> None:
        """The slow and the failed requests of this process, to whom the metrics are shown."""
        if self._recent is None or not (self._public or is_local(scope)):
            await _respond(scope, send, 404, "text/plain; charset=utf-8", b"Not Found")
            return
        body = self._recent(scope.get("query_string", b""))
        await _respond(scope, send, 200, "application/json", body)

    async def keys(self, scope: ASGIScope, send: Send) -> None:
        """The keys of the cache that are read most. They may name people: always for this machine alone."""
        if self._hot_keys is None or not is_local(scope):
            await _respond(scope, send, 404, "text/plain; charset=utf-8", b"Not Found")
            return
        await _respond(scope, send, 200, "application/json", self._hot_keys())


def is_local(scope: ASGIScope) -> bool:
    """Whether a program on this machine asks, directly: a loopback peer, nothing forwarded.

    The Host header must name this machine as well, or a web page could ask in a local browser's name
    (DNS rebinding). A proxy on this machine that forwards silently looks the same as its machine: have
    it refuse these paths.
    """
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    for name, value in scope["headers"]:
        if name.startswith((b"x-forwarded", b"forwarded", b"x-real-ip", b"via", b"cf-connecting")):
            return False
        if name == b"host" and not _is_own_name(value.decode("latin-1")):
            return False
    return True


def _is_loopback(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _is_own_name(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in _LOCAL_NAMES or _is_loopback(name)


def problem(error: BaseException, context: Scope | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body (RFC 9457) for an error that nobody handled. Reveals nothing of it.

    What may succeed when it is repeated is 503 with Retry-After, what a failover has lost is 409, everything
    else is 500.
    """
    body: dict[str, str | int] = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    if _retryable(error):
        body |= {"title": "Service Unavailable", "status": 503}
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    elif isinstance(error, LostWrite):
        body |= {"type": LOST_WRITE, "title": "Lost Write", "status": 409, "detail": LOST_WRITE_DETAIL}
    if context is not None and context.trace_id:
        body["trace_id"] = context.trace_id
    encoded = msgspec.json.encode(body)
    headers.append((b"content-length", b"%d" % len(encoded)))
    return int(body["status"]), headers, encoded


async def _answer(error: Exception, context: Scope, send: Send) -> None:
    status, headers, body = problem(error, context)
    if status != 500:
        logger.warning("answered %d: %s", status, error)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _respond(scope: ASGIScope, send: Send, status: int, content_type: str, body: bytes) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        status, content_type, body = 405, "text/plain; charset=utf-8", b"Method Not Allowed"
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _retryable(error: BaseException) -> bool:
    return getattr(error, "retryable", False) is True


def _status_of(error: BaseException, sent: int) -> int:
    """What to count: a caller who went away is no error of ours, whatever was sent to nobody."""
    if isinstance(error, asyncio.CancelledError) or type(error).__name__ == "ClientDisconnect":
        return sent if 0 < sent < 500 else CLIENT_CLOSED_REQUEST
    return sent or (503 if _retryable(error) else 409 if isinstance(error, LostWrite) else 500)


def _mark(error: BaseException, context: Scope) -> None:
    """Let whoever logs this error further out (the server) find its trace."""
    with contextlib.suppress(AttributeError):  # an exception class with slots
        error.__outgrow_trace__ = (context.trace_id, context.span_id)  # type: ignore[attr-defined]
