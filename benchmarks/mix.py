"""The requests of the load: 35% list, 30% article, 10% tags, 5% comments, 10% feed, 10% writes."""

from __future__ import annotations

import random
from collections import Counter
from typing import NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from benchmarks.data import WORDS, Data, Zipf, tags

SIGNED_IN_SHARE = 0.4
"""Of the lists, articles and comments read; of the feed and of writes it is all, of the tags none."""

SESSIONS = 200
"""How many users have a token."""

KINDS = {
    "list": 35.0,
    "article": 30.0,
    "tags": 10.0,
    "comments": 5.0,
    "feed": 10.0,
    "favourite": 3.0,
    "unfavourite": 2.0,
    "comment": 2.5,
    "follow": 1.0,
    "unfollow": 0.5,
    "create": 0.5,
    "update": 0.5,
}
LISTS = {"newest": 60, "later pages": 10, "by tag": 15, "by author": 10, "favourited by": 5}


class Request(NamedTuple):
    """`user` is the id of the user whose token it carries, or None."""

    kind: str
    method: str
    path: str
    user: int | None = None
    body: bytes = b""

    def encoded(self, token: str | None) -> bytes:
        """As it goes over the wire, but for the empty line that ends the headers of a request."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: 127.0.0.1"]
        if token is not None:
            lines.append(f"authorization: Token {token}")
        if self.body:
            lines += ["content-type: application/json", f"content-length: {len(self.body)}"]
        return "\r\n".join(lines).encode() + b"\r\n"


def sessions(data: Data) -> list[int]:
    """The users who have a token."""
    users = [user.id for user in data.users]
    return sorted(random.Random(2).sample(users, min(SESSIONS, len(users) // 2)))


def make(data: Data, count: int, seed: int = 3) -> list[Request]:
    """So many requests in a random order, the same for every version."""
    builder = _Builder(data, random.Random(seed))
    kinds = builder.rng.choices(list(KINDS), list(KINDS.values()), k=count)
    return [getattr(builder, kind)() for kind in kinds]


def shares(requests: list[Request]) -> dict[str, float]:
    """What came out, in percent, by kind and with a token."""
    counts = Counter(request.kind for request in requests)
    found = {kind: 100 * counts[kind] / len(requests) for kind in KINDS}
    found["with a token"] = 100 * sum(request.user is not None for request in requests) / len(requests)
    return found


class _Builder:
    """One method a kind."""

    def __init__(self, data: Data, rng: random.Random) -> None:
        self.rng = rng
        self._data = data
        self._users = sessions(data)
        self._read = Zipf(len(data.articles), 0.9)
        self._authors = Zipf(len(data.users), 0.6)
        mine = set(self._users)
        self._own = [article for article in data.articles if article.author in mine]

    def list(self) -> Request:
        kind = self.rng.choices(list(LISTS), list(LISTS.values()))[0]
        user = self._data.users[self._authors.draw(self.rng) - 1].username
        queries: dict[str, dict[str, str | int]] = {
            "newest": {},
            "later pages": {"limit": 20, "offset": 20 * self.rng.randint(1, 10)},
            "by tag": {"tag": self._tag()},
            "by author": {"author": user},
            "favourited by": {"favorited": user},
        }
        query = queries[kind]
        path = "/api/articles" + (f"?{urlencode(query)}" if query else "")
        return Request("list", "GET", path, self._perhaps())

    def article(self) -> Request:
        return Request("article", "GET", f"/api/articles/{self._popular()}", self._perhaps())

    def tags(self) -> Request:
        return Request("tags", "GET", "/api/tags")

    def comments(self) -> Request:
        return Request("comments", "GET", f"/api/articles/{self._popular()}/comments", self._perhaps())

    def feed(self) -> Request:
        return Request("feed", "GET", "/api/articles/feed", self._user())

    def favourite(self) -> Request:
        return Request("favourite", "POST", f"/api/articles/{self._popular()}/favorite", self._user())

    def unfavourite(self) -> Request:
        return Request("unfavourite", "DELETE", f"/api/articles/{self._popular()}/favorite", self._user())

    def comment(self) -> Request:
        # On any article alike, or the popular ones' comments would grow while the load runs.
        slug = self.rng.choice(self._data.articles).slug
        body = msgspec.json.encode({"comment": {"body": self._text(15)}})
        return Request("comment", "POST", f"/api/articles/{slug}/comments", self._user(), body)

    def follow(self) -> Request:
        return Request("follow", "POST", f"/api/profiles/{self._someone()}/follow", self._user())

    def unfollow(self) -> Request:
        return Request("unfollow", "DELETE", f"/api/profiles/{self._someone()}/follow", self._user())

    def create(self) -> Request:
        article = {
            "title": self._text(5),
            "description": self._text(12),
            "body": self._text(180),
            "tagList": tags(self.rng),
        }
        return Request(
            "create", "POST", "/api/articles", self._user(), msgspec.json.encode({"article": article})
        )

    def update(self) -> Request:
        article = self.rng.choice(self._own)
        body = msgspec.json.encode({"article": {"description": self._text(12), "body": self._text(180)}})
        return Request("update", "PUT", f"/api/articles/{article.slug}", article.author, body)

    def _popular(self) -> str:
        return self._data.articles[self._read.draw(self.rng) - 1].slug

    def _tag(self) -> str:
        tags = self._data.tags
        return self.rng.choices(list(tags), list(tags.values()))[0]

    def _someone(self) -> str:
        return quote(self.rng.choice(self._data.users).username)

    def _user(self) -> int:
        return self.rng.choice(self._users)

    def _perhaps(self) -> int | None:
        return self._user() if self.rng.random() < SIGNED_IN_SHARE else None

    def _text(self, words: int) -> str:
        return " ".join(self.rng.choices(WORDS, k=words))
