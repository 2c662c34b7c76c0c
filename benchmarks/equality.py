"""Do all versions answer alike? A benchmark of different answers would be worthless.

Every version gets the same requests in the same order: reads of every kind, then writes, each
followed by reads of what it changed, and requests that must be refused. Status and document have to
be equal, after this much is made alike: a moment is compared to the millisecond (one made during the
check: only that it is one), ids of comments and slugs made during the check are only counted.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from benchmarks import mix
from benchmarks.data import PASSWORD, Data
from benchmarks.mix import Request

MOMENTS = ("createdAt", "updatedAt")


class Answer(NamedTuple):
    """A status and a document."""

    status: int
    document: Any


class Different(Exception):
    """Two versions answered a request differently."""


def tokens(port: int, data: Data) -> dict[int, str]:
    """Log in everybody who has a session."""
    emails = {user.id: user.email for user in data.users}
    found = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for user in mix.sessions(data):
        body = msgspec.json.encode({"user": {"email": emails[user], "password": PASSWORD}})
        answer = _ask(connection, Request("login", "POST", "/api/users/login", None, body), {})
        if answer.status != 200:
            raise Different(f"login of {emails[user]}: {answer}")
        found[user] = answer.document["user"]["token"]
    connection.close()
    return found


def answers(port: int, data: Data) -> list[tuple[Request, Answer]]:
    """What a version answers to all the requests of the check."""
    held = tokens(port, data)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    normalise = Normaliser(data)
    found = []
    try:
        for request in _requests(data):
            answer = _ask(connection, request, held)
            found.append((request, Answer(answer.status, normalise(answer.document))))
    finally:
        connection.close()
    return found


def compare(by_version: Mapping[str, list[tuple[Request, Answer]]]) -> int:
    """How many requests were answered alike by all. Raises Different for the first that was not."""
    (first, expected), *others = by_version.items()
    for name, found in others:
        for (request, wanted), (_, got) in zip(expected, found, strict=True):
            if wanted != got:
                asked = f"{request.method} {request.path} (user {request.user}) {request.body.decode()}"
                raise Different(f"{asked}\n{_difference(wanted, got, first, name)}")
    return len(expected)


def _requests(data: Data) -> Iterator[Request]:
    yield from _reads(data)
    yield from _refused(data)
    writes = [each for each in mix.make(data, 2_000, seed=5) if each.method != "GET"][:60]
    for request in writes:
        yield request
        yield from _follow_up(request)
    yield Request("list", "GET", "/api/articles", mix.sessions(data)[0])
    yield Request("tags", "GET", "/api/tags")


def _reads(data: Data) -> Iterator[Request]:
    yield from (each for each in mix.make(data, 200, seed=4) if each.method == "GET")
    user = mix.sessions(data)[0]
    for query in ("limit=5&offset=3", "limit=1&offset=100000", "tag=none", "author=none", "favorited=none"):
        yield Request("list", "GET", f"/api/articles?{query}", None)
        yield Request("list", "GET", f"/api/articles?{query}", user)
    yield Request("feed", "GET", "/api/articles/feed?limit=3&offset=2", user)


def _refused(data: Data) -> Iterator[Request]:
    user = mix.sessions(data)[0]
    foreign = next(article for article in data.articles if article.author != user).slug
    change = msgspec.json.encode({"article": {"body": "mine"}})
    blank = msgspec.json.encode({"article": {"title": "", "description": "x", "body": "x"}})
    yield Request("feed", "GET", "/api/articles/feed")
    yield Request("article", "GET", "/api/articles/none", user)
    yield Request("comments", "GET", "/api/articles/none/comments")
    yield Request("favourite", "POST", "/api/articles/none/favorite")
    yield Request("favourite", "POST", "/api/articles/none/favorite", user)
    yield Request("follow", "POST", "/api/profiles/none/follow", user)
    yield Request("update", "PUT", f"/api/articles/{foreign}", user, change)
    yield Request("update", "PUT", "/api/articles/none", user, change)
    yield Request("create", "POST", "/api/articles", user, blank)


def _follow_up(request: Request) -> Iterator[Request]:
    """What a client would look at after its write, as itself and as a stranger."""
    if request.kind in ("favourite", "unfavourite", "update", "comment"):
        article = request.path.removesuffix("/favorite").removesuffix("/comments")
        path = f"{article}/comments" if request.kind == "comment" else article
        yield Request("article", "GET", path, request.user)
        yield Request("article", "GET", path)
    elif request.kind in ("follow", "unfollow"):
        yield Request("feed", "GET", "/api/articles/feed", request.user)
    else:
        yield Request("list", "GET", "/api/articles?limit=3", request.user)
        yield Request("list", "GET", "/api/articles?limit=3")


def _ask(connection: http.client.HTTPConnection, request: Request, held: Mapping[int, str]) -> Answer:
    headers = {}
    if request.user is not None:
        headers["Authorization"] = f"Token {held[request.user]}"
    if request.body:
        headers["Content-Type"] = "application/json"
    connection.request(request.method, request.path, request.body or None, headers)
    response = connection.getresponse()
    body = response.read()
    if response.headers.get("content-type") != "application/json":
        return Answer(response.status, body.decode(errors="replace") or None)
    return Answer(response.status, msgspec.json.decode(body))


class Normaliser:
    """Makes alike what may differ."""

    def __init__(self, data: Data) -> None:
        self._newest = datetime.fromtimestamp(data.newest_ms / 1000).astimezone()
        self._slugs = {article.slug for article in data.articles}

    def __call__(self, document: Any) -> Any:
        """The document without what only this version can know."""
        if isinstance(document, list):
            return [self(each) for each in document]
        if not isinstance(document, dict):
            return document
        return {key: self._value(key, value) for key, value in document.items()}

    def _value(self, key: str, value: Any) -> Any:
        if key in MOMENTS:
            moment = datetime.fromisoformat(value)
            return "made now" if moment > self._newest else round(moment.timestamp() * 1000)
        if key == "slug" and value not in self._slugs:
            return "made now"
        if key == "tags":
            return sorted(value)  # their order is left open by the specification
        return "an id" if key == "id" and isinstance(value, int) else self(value)


def _difference(wanted: Any, got: Any, first: str, second: str, at: str = "") -> str:
    """The first place where the two differ."""
    if isinstance(wanted, dict) and isinstance(got, dict) and wanted.keys() == got.keys():
        pairs = [(f"{at}.{key}", wanted[key], got[key]) for key in wanted]
    elif isinstance(wanted, list | tuple) and isinstance(got, list | tuple) and len(wanted) == len(got):
        pairs = [(f"{at}[{number}]", *pair) for number, pair in enumerate(zip(wanted, got, strict=True))]
    else:
        return f"{at or 'answer'}\n{first}: {wanted}\n{second}: {got}"
    place, one, other = next(pair for pair in pairs if pair[1] != pair[2])
    return _difference(one, other, first, second, place)
