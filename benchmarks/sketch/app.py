"""The sketch: Starlette, msgspec and a store on asyncpg or sqlite3. SKETCH_DATABASE says where.

It knows what the mix of the benchmark asks for, to the specification's letter, and nothing else:
one filter at a time, no registration, no change of tags or titles.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Annotated, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.sketch.answers import answer, article, comment, page, profile, refuse
from benchmarks.sketch.store import FILTERS, open_store
from benchmarks.sketch.tokens import Tokens

Text = Annotated[str, msgspec.Meta(min_length=1)]
Handler = Callable[[Request, int], Awaitable[Response]]
LIMIT_MAX = 100

tokens = Tokens(secrets.token_bytes(32))
hasher = PasswordHasher()
store = open_store(os.environ["SKETCH_DATABASE"])


class Login(msgspec.Struct):
    email: Text
    password: Text


class LoginBody(msgspec.Struct):
    user: Login


class NewArticle(msgspec.Struct):
    title: Text
    description: Text
    body: Text
    tags: list[Text] = msgspec.field(name="tagList", default_factory=list)


class NewArticleBody(msgspec.Struct):
    article: NewArticle


class ArticleChange(msgspec.Struct):
    description: Text | None = None
    body: Text | None = None


class ArticleChangeBody(msgspec.Struct):
    article: ArticleChange


class NewComment(msgspec.Struct):
    body: Text


class NewCommentBody(msgspec.Struct):
    comment: NewComment


decode_login = msgspec.json.Decoder(LoginBody).decode
decode_article = msgspec.json.Decoder(NewArticleBody).decode
decode_change = msgspec.json.Decoder(ArticleChangeBody).decode
decode_comment = msgspec.json.Decoder(NewCommentBody).decode


class Refused(Exception):
    """A token that proves nothing."""


def reader(request: Request) -> int | None:
    """Who asks, or None without a token. Raises Refused for a wrong one."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    user = tokens.user(header[6:]) if header.startswith("Token ") else None
    if user is None:
        raise Refused
    return user


def signed_in(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """For those with a token alone; the answer to the others comes before any 404."""

    async def guarded(request: Request) -> Response:
        user = reader(request)
        return refuse(401, "token", "is missing") if user is None else await handler(request, user)

    return guarded


class Wanted(NamedTuple):
    """Which articles, and which part of them."""

    kind: str
    value: str | None
    limit: int
    offset: int


@lru_cache(2048)
def wanted(query: bytes) -> Wanted:
    """What a query string asks for. Raises ValueError for a number that is none or out of range."""
    given = dict(parse_qsl(query.decode("latin-1")))
    limit, offset = int(given.get("limit", 20)), int(given.get("offset", 0))
    if limit < 1 or offset < 0:
        raise ValueError
    kind = next((name for name in FILTERS if name in given), "all")
    return Wanted(kind, given.get(kind), min(limit, LIMIT_MAX), offset)


async def login(request: Request) -> Response:
    given = decode_login(await request.body()).user
    row = await store.login(given.email)
    try:
        if row is None or not hasher.verify(row[1], given.password):
            raise VerificationError
    except VerificationError:
        return refuse(401, "credentials", "invalid")
    user, _, username, bio, image = row
    document = {"email": given.email, "username": username, "bio": bio, "image": image}
    return answer({"user": {**document, "token": tokens.make(user)}})


async def articles(request: Request) -> Response:
    kind, value, limit, offset = wanted(request.scope["query_string"])
    return page(*await store.page(kind, value, reader(request), limit, offset))


async def feed(request: Request, user: int) -> Response:
    _, _, limit, offset = wanted(request.scope["query_string"])
    return page(*await store.page("feed", user, user, limit, offset))


async def one(request: Request) -> Response:
    row = await store.article(request.path_params["slug"], reader(request))
    return refuse(404, "article", "not found") if row is None else article(row)


async def add_article(request: Request, user: int) -> Response:
    new = decode_article(await request.body()).article
    slug = f"{'-'.join(new.title.lower().split())}-{secrets.token_hex(4)}"
    tags = sorted(set(new.tags))
    return article(await store.add_article(user, slug, new.title, new.description, new.body, tags), 201)


async def change_article(request: Request, user: int) -> Response:
    change = decode_change(await request.body()).article
    found, row = await store.change_article(
        request.path_params["slug"], user, change.description, change.body
    )
    if not found:
        return refuse(404, "article", "not found")
    return refuse(403, "article", "forbidden") if row is None else article(row)


async def favourite(request: Request, user: int) -> Response:
    row = await store.favourite(request.path_params["slug"], user)
    return refuse(404, "article", "not found") if row is None else article(row)


async def unfavourite(request: Request, user: int) -> Response:
    row = await store.unfavourite(request.path_params["slug"], user)
    return refuse(404, "article", "not found") if row is None else article(row)


async def comments(request: Request) -> Response:
    rows = await store.comments(request.path_params["slug"], reader(request))
    if not rows:
        return refuse(404, "article", "not found")
    return answer({"comments": [comment(row) for row in rows if row[0] is not None]})


async def add_comment(request: Request, user: int) -> Response:
    new = decode_comment(await request.body()).comment
    row = await store.add_comment(request.path_params["slug"], user, new.body)
    return refuse(404, "article", "not found") if row is None else answer({"comment": comment(row)}, 201)


async def follow(request: Request, user: int) -> Response:
    row = await store.follow(request.path_params["username"], user)
    return refuse(404, "profile", "not found") if row is None else profile(row, True)


async def unfollow(request: Request, user: int) -> Response:
    row = await store.unfollow(request.path_params["username"], user)
    return refuse(404, "profile", "not found") if row is None else profile(row, False)


async def tags(request: Request) -> Response:
    return answer({"tags": await store.tags()})


async def on_refused(request: Request, error: Exception) -> Response:
    return refuse(401, "token", "invalid")


async def on_invalid(request: Request, error: Exception) -> Response:
    field = str(error).rpartition(".")[2].rstrip("`") if "`" in str(error) else "body"
    return refuse(422, field, "can't be blank")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await store.open()
    yield
    await store.close()


app = Starlette(
    routes=[
        Route("/api/users/login", login, methods=["POST"]),
        Route("/api/articles", articles),
        Route("/api/articles", signed_in(add_article), methods=["POST"]),
        Route("/api/articles/feed", signed_in(feed)),
        Route("/api/articles/{slug}", one),
        Route("/api/articles/{slug}", signed_in(change_article), methods=["PUT"]),
        Route("/api/articles/{slug}/favorite", signed_in(favourite), methods=["POST"]),
        Route("/api/articles/{slug}/favorite", signed_in(unfavourite), methods=["DELETE"]),
        Route("/api/articles/{slug}/comments", comments),
        Route("/api/articles/{slug}/comments", signed_in(add_comment), methods=["POST"]),
        Route("/api/profiles/{username}/follow", signed_in(follow), methods=["POST"]),
        Route("/api/profiles/{username}/follow", signed_in(unfollow), methods=["DELETE"]),
        Route("/api/tags", tags),
    ],
    exception_handlers={Refused: on_refused, msgspec.ValidationError: on_invalid, ValueError: on_invalid},
    lifespan=lifespan,
)
