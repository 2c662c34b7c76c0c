"""What travels: cookies in, cookies and cache headers out, and what is answered when the store is down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from outgrow import Outgrow, endpoints
from outgrow.errors import Misuse, SessionsUnavailable
from outgrow.runtime.sessions import SessionMiddleware
from outgrow.runtime.sessions.memory import MemoryStore
from outgrow.runtime.sessions.store import Record
from tests.support.asgi import Answer, connection, request


def outgrow(directory: Path, **settings: Any) -> Outgrow:
    node = endpoints.Node("db", f"sqlite:///{directory}/test.db")
    document = endpoints.Endpoints(
        application="t",
        stage="single-server",
        database=endpoints.Database("sqlite", (endpoints.Shard("0", (node,)),)),
        sessions=endpoints.Sessions(**{"engine": "memory", **settings}),
        telemetry=endpoints.Telemetry(access_log=False),
    )
    return Outgrow(document, endpoints.Secrets(application="ab" * 32))


class Down(MemoryStore):
    """A store of which we decide whether it answers."""

    down = False
    asked = 0

    async def load(self, key: str) -> Record | None:
        self._answer()
        return await super().load(key)

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        self._answer()
        await super().add(key, record, kept_ms)

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        self._answer()
        return await super().replace(key, version, record, kept_ms)

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise SessionsUnavailable("pulled out")


async def put(request: Request) -> Response:
    request.session["n"] = request.session.get("n", 0) + 1
    return JSONResponse(dict(request.session), headers=dict(request.query_params))


async def show(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def plain(request: Request) -> Response:
    return PlainTextResponse("plain")


async def log_in(request: Request) -> Response:
    request.session["user"] = 7
    request.session.rotate()  # type: ignore[attr-defined]
    return PlainTextResponse("in")


async def log_out(request: Request) -> Response:
    request.session.destroy()  # type: ignore[attr-defined]
    return PlainTextResponse("out")


async def fail(request: Request) -> Response:
    request.session["n"] = 99
    raise RuntimeError("broken")


async def refuse(request: Request) -> Response:
    request.session["refused"] = True
    raise HTTPException(400)


async def answer_500(request: Request) -> Response:
    request.session["n"] = 99
    return PlainTextResponse("500", 500)


async def late(request: Request) -> Response:
    async def body() -> Any:
        yield b"begun"
        request.session["late"] = True

    return StreamingResponse(body())


async def degrade(request: Request) -> Response:
    try:
        user = request.session.get("user")
    except SessionsUnavailable:
        user = "unknown"
    return PlainTextResponse(str(user))


async def chat(websocket: WebSocket) -> None:
    websocket.session["n"] = websocket.session.get("n", 0) + 1
    await websocket.accept()
    with pytest.raises(Misuse):
        websocket.session["n"] = 0
    await websocket.close()


HANDLERS = (put, show, plain, log_in, log_out, fail, refuse, answer_500, late, degrade)


def application(og: Outgrow) -> Callable[..., Awaitable[None]]:
    routes = [Route(f"/{handler.__name__}", handler) for handler in HANDLERS]
    app = Starlette(routes=[*routes, WebSocketRoute("/chat", chat)])
    og.install(app)
    return app


class Browser:
    """Sends back what it was given."""

    def __init__(self, app: Callable[..., Awaitable[None]], name: str = "outgrow_session") -> None:
        self.app = app
        self.name = name
        self.cookie = ""

    async def get(self, path: str, **changes: Any) -> Answer:
        path, _, query = path.partition("?")
        headers = [(b"host", b"127.0.0.1:8000")]
        if self.cookie:
            headers.append((b"cookie", f"other=1; {self.name}={self.cookie}; more=2".encode()))
        scope = connection(path, headers=headers, query_string=query.encode(), **changes)
        answer = await request(self.app, scope)
        for value in answer.values(b"set-cookie"):
            name, _, rest = value.decode().partition("=")
            if name == self.name:
                self.cookie = rest.partition(";")[0]
        return answer


@pytest.fixture
def og(tmp_path: Path) -> Outgrow:
    return outgrow(tmp_path)


@pytest.fixture
def store(og: Outgrow) -> Down:
    assert og.sessions is not None
    og.sessions.store = Down()
    return og.sessions.store


@pytest.fixture
def browser(og: Outgrow, store: Down) -> Browser:
    return Browser(application(og))


async def test_the_cookie_and_its_attributes(browser: Browser) -> None:
    answer = await browser.get("/put")
    (cookie,) = answer.values(b"set-cookie")
    assert cookie.decode() == (
        f"outgrow_session={browser.cookie}; Path=/; Max-Age=1209600; HttpOnly; SameSite=Lax"
    )
    assert answer.values(b"cache-control") == [b"no-store"]
    assert answer.values(b"vary") == [b"Cookie"]
    again = await browser.get("/put")
    assert again.body == b'{"n":2}' and again.values(b"set-cookie") == []


async def test_over_https_it_is_for_https_alone(browser: Browser) -> None:
    (cookie,) = (await browser.get("/put", scheme="https")).values(b"set-cookie")
    assert cookie.endswith(b"; Secure")


async def test_settings_of_the_cookie(tmp_path: Path) -> None:
    og = outgrow(tmp_path, cookie="__Host-s", secure="always", same_site="strict", lifetime_s=60.0)
    browser = Browser(application(og), "__Host-s")
    (cookie,) = (await browser.get("/put")).values(b"set-cookie")
    assert cookie.endswith(b"; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure")
    assert (await browser.get("/show")).body == b'{"n":1}'


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("", [b"no-store"]),
        ("public,max-age=60", [b"no-store"]),
        ("max-age=60", [b"no-store"]),
        ("private,max-age=60", [b"private,max-age=60"]),
        ("no-store", [b"no-store"]),
        ("private,s-maxage=60", [b"no-store"]),
        ('private="x-user",max-age=60', [b"no-store"]),
    ],
)
async def test_no_shared_cache_may_keep_a_cookie(browser: Browser, said: str, sent: list[bytes]) -> None:
    query = f"cache-control={said}&" if said else ""
    answer = await browser.get(f"/put?{query}cdn-cache-control=max-age%3D60&expires=tomorrow")
    assert answer.values(b"cache-control") == sent
    assert answer.values(b"cdn-cache-control") == []
    kept = await browser.get("/put?cache-control=public&vary=accept,%20COOKIE")
    assert kept.values(b"cache-control") == [b"public"], "no cookie is set: that is the application's affair"
    assert kept.values(b"vary") == [b"accept, COOKIE"]


async def test_who_does_not_touch_it_pays_and_shows_nothing(browser: Browser, store: Down) -> None:
    answer = await browser.get("/plain")
    assert {name for name, _ in answer.headers} == {b"content-length", b"content-type"}
    await browser.get("/show")
    assert store.asked == 0 and browser.cookie == "", "without a cookie the store is not asked"
    await browser.get("/put")
    asked = store.asked
    assert (await browser.get("/plain")).values(b"vary") == []
    assert store.asked == asked + 1


async def test_login_and_logout(browser: Browser) -> None:
    await browser.get("/put")
    before = browser.cookie
    await browser.get("/log_in")
    assert browser.cookie not in ("", before)
    assert (await browser.get("/show")).body == b'{"n":1,"user":7}'
    answer = await browser.get("/log_out")
    assert answer.values(b"set-cookie") == [b"outgrow_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]
    assert answer.values(b"cache-control") == [b"no-store"]


async def test_what_failed_keeps_nothing(browser: Browser) -> None:
    await browser.get("/put")
    answer = await browser.get("/fail")
    assert answer.status == 500
    assert (await browser.get("/answer_500")).status == 500
    assert (await browser.get("/show")).body == b'{"n":1}'
    assert (await browser.get("/refuse")).status == 400
    assert (await browser.get("/show")).body == b'{"n":1,"refused":true}'


async def test_a_change_that_comes_too_late_is_no_secret(browser: Browser) -> None:
    answer = await browser.get("/late", asgi={"version": "3.0", "spec_version": "2.4"})
    assert isinstance(answer.error, Misuse) and "after the answer had begun" in str(answer.error)


async def test_several_cookies_of_this_name(browser: Browser) -> None:
    """A subdomain may have set another one: that must not log anybody out."""
    await browser.get("/put")
    good = browser.cookie
    browser.cookie = f"forged; outgrow_session={good}"
    assert (await browser.get("/show")).body == b'{"n":1}'


# --- The store is down -------------------------------------------------------------------------------


async def test_what_needs_no_session_is_served(browser: Browser, store: Down) -> None:
    await browser.get("/log_in")
    store.down = True
    assert (await browser.get("/plain")).body == b"plain"
    assert (await Browser(browser.app).get("/show")).body == b"{}"


async def test_a_session_that_is_unknown_is_not_an_empty_one(browser: Browser, store: Down) -> None:
    await browser.get("/log_in")
    cookie = browser.cookie
    store.down = True
    for path in ("/show", "/put", "/log_in", "/log_out"):
        answer = await browser.get(path)
        assert answer.status == 503 and answer.values(b"retry-after") == [b"1"], path
        assert answer.values(b"set-cookie") == [] and browser.cookie == cookie
    assert (await browser.get("/degrade")).body == b"unknown", "an application may do better"
    store.down = False
    await asyncio.sleep(1.05)  # the breaker's rest
    assert (await browser.get("/show")).body == b'{"user":7}'


async def test_a_session_that_cannot_be_kept_is_no_success(browser: Browser, store: Down) -> None:
    store.down = True
    answer = await browser.get("/log_in")
    assert answer.status == 503 and answer.values(b"set-cookie") == []
    store.down = False
    await browser.get("/log_in")
    visit = connection("/put", headers=[(b"cookie", f"outgrow_session={browser.cookie}".encode())])

    class Falling(Down):
        async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
            raise SessionsUnavailable("pulled out in the middle")

    store.__class__ = Falling
    answer = await request(browser.app, visit)
    assert answer.status == 503 and b"user" not in answer.body


async def test_what_is_down_is_left_in_peace(browser: Browser, store: Down) -> None:
    await browser.get("/log_in")
    store.down, store.asked = True, 0
    for _ in range(20):
        assert (await browser.get("/show")).status == 503
    assert store.asked == 3


async def test_a_session_that_is_too_large_is_answered_500(tmp_path: Path) -> None:
    browser = Browser(application(outgrow(tmp_path, size_bytes_max=64)))
    assert (await browser.get("/put")).status == 200

    async def grow(request: Request) -> Response:
        request.session["n"] = "x" * 100
        return PlainTextResponse("not reached")

    app = Starlette(routes=[Route("/grow", grow)])
    outgrow(tmp_path, size_bytes_max=64).install(app)
    answer = await Browser(app).get("/grow")
    assert answer.status == 500 and "larger than 64" in str(answer.error)


# --- Frameworks --------------------------------------------------------------------------------------


async def test_a_websocket(browser: Browser) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"} if not sent else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    await browser.get("/put")
    scope = connection("/chat", headers=[(b"cookie", f"outgrow_session={browser.cookie}".encode())])
    await browser.app({**scope, "type": "websocket", "subprotocols": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert (await browser.get("/show")).body == b'{"n":2}'


async def test_litestar(og: Outgrow, store: Down) -> None:
    @get("/count")
    async def count(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        request.session["n"] = request.session.get("n", 0) + 1
        return dict(request.session)

    browser = Browser(og.wrap(Litestar([count], openapi_config=None)))
    for number in (1, 2, 3):
        assert (await browser.get("/count")).body == b'{"n":%d}' % number
    store.down = True
    answer = await browser.get("/count")
    assert answer.status == 503, "also where the framework makes a 500 of every exception"


async def test_plain_asgi(og: Outgrow) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = scope["session"].get("n", 0) + 1
        body = b"%d" % scope["session"]["n"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    browser = Browser(og.wrap(app))
    assert [(await browser.get("/")).body for _ in range(3)] == [b"1", b"2", b"3"]


def test_off_means_that_there_is_none(tmp_path: Path) -> None:
    og = outgrow(tmp_path, engine="off")
    assert og.sessions is None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    assert not isinstance(getattr(og.wrap(app), "app", None), SessionMiddleware)


def test_redis_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no url says where"):
        outgrow(tmp_path, engine="redis")


async def test_inside_a_write_block_a_session_cannot_be_kept(tmp_path: Path) -> None:
    """On SQLite it would wait for the block that waits for it."""
    from outgrow.runtime.database.migrate import migrate

    og = outgrow(tmp_path, engine="database")
    await migrate(f"sqlite:///{tmp_path}/test.db", None)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        async with og.db.write():
            await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b""})

    async with og:
        answer = await request(og.wrap(app), connection("/"))
    assert answer.status == 500 and "inside a write block" in str(answer.error)


async def test_in_the_database_it_does_not_touch_the_bookmark(tmp_path: Path) -> None:
    from outgrow.runtime.database.migrate import migrate

    og = outgrow(tmp_path, engine="database")
    await migrate(f"sqlite:///{tmp_path}/test.db", None)
    async with og:
        browser = Browser(application(og))
        answer = await browser.get("/put", method="POST")
        assert answer.status == 405
        answer = await browser.get("/put")
        assert browser.cookie and answer.values(b"outgrow-bookmark") == []
        assert (await browser.get("/put")).body == b'{"n":2}'
