"""A target for the load generator: the RealWorld API in memory, as fast as Python allows, that can misbehave.

Writes become visible to readers after `lag_s`, as on a replica that is behind, unless the reader's
bookmark proves that it must see them. `python -m tests.load.realworld PORT [LAG_S]` runs it alone.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import uvicorn
import uvloop

encode = msgspec.json.encode
ARTICLES = 300
PAGE = 20
_TIME = "2025-01-01T00:00:00.000Z"


class Article(msgspec.Struct, rename="camel"):
    slug: str
    title: str
    description: str
    author: str
    body: str
    updated_at: str = _TIME
    tag_list: list[str] = []


class Server:
    """The whole application. Knobs are plain attributes, so that a test may turn them while it serves."""

    def __init__(self, *, lag_s: float = 0.0, articles: int = ARTICLES) -> None:
        self.lag_s = lag_s
        self.answer_s = 0.0
        self.fail_share = 0.0
        self.seen: list[tuple[str, str, dict[bytes, bytes]]] = []
        self.keeps_requests = False
        self.articles = {
            f"article-{number}": Article(
                f"article-{number}",
                f"Article {number}",
                "About something",
                f"author-{number % 40}",
                "text " * 60,
            )
            for number in range(articles)
        }
        self.order = list(self.articles)
        self.favorites: set[tuple[str, str]] = set()
        self.follows: set[tuple[str, str]] = set()
        self.comments: dict[str, dict[int, str]] = {}
        self.users = 0
        self._count = 0
        self._asked = 0
        self._pending: deque[tuple[int, float, Callable[[], object]]] = deque()
        self._routes = [(method, re.compile(path), handler) for method, path, handler in self._table()]

    def _table(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        return [
            ("GET", "/api/articles", self.list),
            ("GET", "/api/articles/feed", self.feed),
            ("GET", "/api/tags", self.tags),
            ("GET", r"/api/articles/([^/]+)", self.article),
            ("GET", r"/api/articles/([^/]+)/comments", self.show_comments),
            ("POST", "/api/users", self.register),
            ("POST", "/api/articles", self.create),
            ("PUT", r"/api/articles/([^/]+)", self.change),
            ("POST", r"/api/articles/([^/]+)/comments", self.comment),
            ("DELETE", r"/api/articles/([^/]+)/comments/(\d+)", self.uncomment),
            ("POST", r"/api/articles/([^/]+)/favorite", self.favorite),
            ("DELETE", r"/api/articles/([^/]+)/favorite", self.unfavorite),
            ("POST", r"/api/profiles/([^/]+)/follow", self.follow),
            ("DELETE", r"/api/profiles/([^/]+)/follow", self.unfollow),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        body = await _body(receive) if scope["method"] != "GET" else b""
        if self.keeps_requests:
            self.seen.append((scope["method"], scope["path"], headers))
        if self.answer_s:
            await asyncio.sleep(self.answer_s)
        status, document = self.answer(scope, headers, body)
        content = document if isinstance(document, bytes) else encode(document)
        out = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
        if scope["method"] != "GET":
            out.append((b"outgrow-bookmark", b"%d" % self._count))
            out.append((b"set-cookie", b"outgrow_bookmark=%d; Path=/" % self._count))
        await send({"type": "http.response.start", "status": status, "headers": out})
        await send({"type": "http.response.body", "body": content})

    def answer(self, scope: Any, headers: dict[bytes, bytes], body: bytes) -> tuple[int, Any]:
        self._asked += 1
        if self.fail_share and self._asked % round(1 / self.fail_share) == 0:
            return 503, {"errors": {"server": ["is tired"]}}
        self._settle(_bookmark(headers))
        user = headers.get(b"authorization", b"").removeprefix(b"Token ").decode()
        path, query = scope["path"], scope["query_string"].decode()
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(path) if method == scope["method"] else None
            if found is not None:
                document = msgspec.json.decode(body) if body else {}
                return handler(*found.groups(), user=user, query=query, document=document)
        return 404, {"errors": {"path": ["not found"]}}

    def _settle(self, bookmark: int) -> None:
        now = time.monotonic()
        while self._pending and (self._pending[0][0] <= bookmark or self._pending[0][1] <= now):
            self._pending.popleft()[2]()

    def _write(self, change: Callable[[], object]) -> None:
        self._count += 1
        self._pending.append((self._count, time.monotonic() + self.lag_s, change))

    # --- Reading.

    def list(self, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        slugs = self.order
        if found := re.search(r"author=([^&]+)", query):
            slugs = [slug for slug in slugs if self.articles[slug].author == found[1]]
        limit = int(found[1]) if (found := re.search(r"limit=(\d+)", query)) else PAGE
        offset = int(found[1]) if (found := re.search(r"offset=(\d+)", query)) else 0
        newest = slugs[::-1][offset : offset + limit]
        return 200, {
            "articles": [self._shown(self.articles[slug], user) for slug in newest],
            "articlesCount": len(slugs),
        }

    def feed(self, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        return 200, {"articles": [], "articlesCount": 0}

    def tags(self, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        return 200, {"tags": ["dragons", "training"]}

    def article(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        article = self.articles.get(slug)
        if article is None:
            return 404, {"errors": {"article": ["not found"]}}
        return 200, {"article": self._shown(article, user) | {"body": article.body}}

    def show_comments(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        found = self.comments.get(slug, {})
        return 200, {"comments": [{"id": number, "body": body} for number, body in found.items()]}

    # --- Writing.

    def register(self, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self.users += 1
        name = document["user"]["username"]
        return 201, {"user": {"username": name, "token": name}}

    def create(self, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        new = document["article"]
        slug = new["title"].replace(" ", "-")
        article = Article(slug, new["title"], new["description"], user, new["body"])

        def change() -> None:
            self.articles[slug] = article
            self.order.append(slug)

        self._write(change)
        return 201, {"article": self._shown(article, user)}

    def change(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        description = document["article"]["description"]
        self._write(lambda: setattr(self.articles[slug], "description", description))
        return 200, {"article": {"slug": slug, "description": description}}

    def comment(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        body = document["comment"]["body"]
        number = self._count + 1
        self._write(lambda: self.comments.setdefault(slug, {}).__setitem__(number, body))
        return 201, {"comment": {"id": number, "body": body}}

    def uncomment(self, slug: str, number: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self._write(lambda: self.comments.get(slug, {}).pop(int(number), None))
        return 200, {}

    def favorite(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self._write(lambda: self.favorites.add((user, slug)))
        return 200, {"article": {"slug": slug, "favorited": True}}

    def unfavorite(self, slug: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self._write(lambda: self.favorites.discard((user, slug)))
        return 200, {"article": {"slug": slug, "favorited": False}}

    def follow(self, name: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self._write(lambda: self.follows.add((user, name)))
        return 200, {"profile": {"username": name, "following": True}}

    def unfollow(self, name: str, *, user: str, query: str, document: Any) -> tuple[int, Any]:
        self._write(lambda: self.follows.discard((user, name)))
        return 200, {"profile": {"username": name, "following": False}}

    def _shown(self, article: Article, user: str) -> dict[str, Any]:
        return {
            "slug": article.slug,
            "title": article.title,
            "description": article.description,
            "tagList": article.tag_list,
            "createdAt": _TIME,
            "updatedAt": article.updated_at,
            "favorited": (user, article.slug) in self.favorites,
            "favoritesCount": 0,
            "author": {
                "username": article.author,
                "bio": None,
                "image": None,
                "following": (user, article.author) in self.follows,
            },
        }


def _bookmark(headers: dict[bytes, bytes]) -> int:
    cookie = re.search(rb"outgrow_bookmark=(\d+)", headers.get(b"cookie", b""))
    return max(int(headers.get(b"outgrow-bookmark", b"0")), int(cookie[1]) if cookie else 0)


async def _body(receive: Any) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _uvicorn(app: Any, port: int) -> uvicorn.Server:
    settings = uvicorn.Config(
        app, port=port, log_level="critical", access_log=False, lifespan="off", http="httptools", ws="none"
    )
    return uvicorn.Server(settings)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve in this event loop, at a free port; gives the URL."""
    server = _uvicorn(app, 0)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        await task


def main() -> None:
    port, lag = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    uvloop.run(_uvicorn(Server(lag_s=lag), port).serve())


if __name__ == "__main__":
    main()
