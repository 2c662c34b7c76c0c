"""Who sends no token sees what all such readers see: whole answers are kept, and given before any routing.

What an answer was made from says when it is no longer good (changes.py): the cache notes it by itself.
"""

from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conduit import og
from conduit.reading.parts import TTL
from outgrow import ETag

SESSION = "/api/session"
SAID = ((b"cache-control", b"no-cache"), (b"vary", b"Authorization"))
"""Whoever keeps such an answer asks each time whether it still holds, and gives it to nobody with a token."""


class Answer(NamedTuple):
    """A whole response, what it is known by, and the route that made it, which the metrics want to know."""

    start: Message
    body: Message
    tag: ETag
    route: Any


class NotKept(Exception):
    """An answer that is no 200: whoever makes up addresses fills no cache."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class AnonymousAnswers:
    """Answers what is asked without a token from the cache; everything else passes through."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_anonymous(scope):
            await self.app(scope, receive, send)
            return
        try:
            answer = await og.cache.get(
                f"anonymous:{scope['path']}?{scope['query_string'].decode('latin-1')}",
                lambda: self._answer(scope),
                ttl=TTL,
            )
        except NotKept as refused:
            answer = refused.answer
        scope["route"] = answer.route
        if answer.start["status"] == 200 and answer.tag.held(_header(scope, b"if-none-match")):
            await send(answer.tag.not_modified(answer.start))
            await send({"type": "http.response.body"})
            return
        await send(answer.start)
        await send(answer.body)

    async def _answer(self, scope: Scope) -> Answer:
        """Ask the application on behalf of all who wait. Raises NotKept."""
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        asked = dict(scope)
        await self.app(asked, receive, send)
        start, body = messages
        tag = ETag.of(body["body"])
        if start["status"] == 200:
            start = {**start, "headers": [*start["headers"], (b"etag", str(tag).encode()), *SAID]}
        answer = Answer(start, body, tag, asked.get("route"))
        if start["status"] != 200:
            raise NotKept(answer)
        return answer


def _is_anonymous(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith("/api/"):
        return False
    if scope["path"] == SESSION:  # there a cookie says who it is
        return False
    return _header(scope, b"authorization") is None


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for header, value in scope["headers"] if header == name), None)
