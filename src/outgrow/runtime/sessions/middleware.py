"""Pure ASGI: scope["session"], which Starlette, FastAPI and Litestar show as request.session.

    request  -> a session cookie? --no--> an empty session, and the store is not asked
                 | yes: loaded before the application runs
               application
                 |
    response <- kept, if it was changed, before the first byte; then Set-Cookie, Vary, Cache-Control

A session that cannot be kept is no success: the application's answer is thrown away, and the error takes
its place. An answer of 500 or more keeps nothing, as an exception does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from outgrow.runtime.sessions.sessions import Sessions, Ticket, Visit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TICKETS_READ_MAX = 4
COOKIE_HEADER_BYTES_MAX = 16_384
BEGINNINGS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_FOR_CACHES_ALONE = frozenset({b"cdn-cache-control", b"surrogate-control", b"cloudflare-cdn-cache-control"})


class SessionMiddleware:
    """Around the application, inside of Outgrow's own middleware, which answers the errors."""

    def __init__(self, app: App, sessions: Sessions) -> None:
        self.app = app
        self._sessions = sessions
        settings = sessions.settings
        self._name = settings.cookie.encode()
        self._always_secure = settings.secure == "always"
        self._attributes = f"; HttpOnly; SameSite={settings.same_site.title()}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. Raises what the application raised, or why its session was not kept."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        tickets = self._tickets(scope["headers"])
        visit = await self._sessions.visit(tickets) if tickets else self._sessions.stranger()
        session = scope["session"] = visit.session
        failure: Exception | None = None

        def tell(message: Message) -> Awaitable[None]:
            if session.accessed:
                return used(message)
            if message["type"] in BEGINNINGS:
                session.freeze()
            return send(message)

        async def used(message: Message) -> None:
            nonlocal failure
            if failure is not None:
                return  # the rest of an answer that never began
            if message["type"] in BEGINNINGS and not session.frozen:
                session.freeze()
                try:
                    message = await self._begin(visit, scope, message)
                except Exception as error:
                    failure = error
                    raise
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except Exception:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        if visit.record is not None:
            await self._sessions.touch(visit)

    async def _begin(self, visit: Visit, scope: Scope, message: Message) -> Message:
        """The beginning of the answer, once the session is safe. Raises why it is not."""
        ticket = None
        if message.get("status", 0) < 500:
            ticket = await self._sessions.save(visit)
        elif visit.session.refused is not None:
            raise visit.session.refused  # the framework has made a 500 of it, and it is a 503
        headers = list(message.get("headers") or ())
        _vary(headers)
        if ticket is not None:
            headers = _private(headers)
            headers.append((b"set-cookie", self._cookie(ticket, scope)))
        return {**message, "headers": headers}

    def _cookie(self, ticket: Ticket, scope: Scope) -> bytes:
        secure = self._always_secure or scope.get("scheme") in ("https", "wss")
        return b"%s=%s; Path=/; Max-Age=%d%s%s" % (
            self._name,
            ticket.text.encode(),
            ticket.max_age_s,
            self._attributes,
            b"; Secure" if secure else b"",
        )

    def _tickets(self, headers: Headers) -> list[bytes]:
        """The session cookies: several, where a subdomain has set one, too."""
        found: list[bytes] = []
        for name, value in headers:
            if name == b"cookie" and self._name in value and len(value) <= COOKIE_HEADER_BYTES_MAX:
                for part in value.split(b";"):
                    key, _, text = part.strip().partition(b"=")
                    if key == self._name and len(found) < TICKETS_READ_MAX:
                        found.append(text.strip(b'"'))
        return found


def _vary(headers: Headers) -> None:
    """The answer depends on the cookie, since the session was looked into."""
    said = b",".join(value for name, value in headers if name.lower() == b"vary").lower()
    if not {b"cookie", b"*"} & {part.strip() for part in said.split(b",")}:
        headers.append((b"vary", b"Cookie"))


def _private(headers: Headers) -> Headers:
    """No cache that several people share may keep an answer with somebody's cookie in it."""
    said = b",".join(value for name, value in headers if name.lower() == b"cache-control").lower()
    parts = {part.strip().partition(b"=")[0] for part in said.split(b",")}
    is_private = {b"no-store", b"private"} & {part.strip() for part in said.split(b",")}
    kept = [(name, value) for name, value in headers if name.lower() not in _FOR_CACHES_ALONE]
    if is_private and not parts & {b"public", b"s-maxage"}:
        return kept
    kept = [(name, value) for name, value in kept if name.lower() not in (b"cache-control", b"expires")]
    return [*kept, (b"cache-control", b"no-store")]
