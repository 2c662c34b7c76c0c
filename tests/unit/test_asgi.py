"""The middleware: scope, bookmark, errors, and what it tells of each request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from outgrow import endpoints
from outgrow.errors import Conflict, LostWrite, Unavailable, UniqueViolation
from outgrow.runtime import scope as current
from outgrow.runtime.asgi import LOST_WRITE, Middleware
from outgrow.runtime.bookmark import Bookmark, Position, Signer
from outgrow.runtime.events import Events
from outgrow.runtime.health import Health
from outgrow.runtime.scope import Scope
from outgrow.runtime.travel import COOKIE, HEADER, SEEN, cookie_values
from tests.support.asgi import Answer, call, connection, request

SIGNER = Signer({1: b"a key of at least 16"})
FORGER = Signer({1: b"another key of the forger"})
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
App = Callable[..., Awaitable[None]]


class Wrapped:
    """An application inside the middleware, and what was told of its requests."""

    def __init__(self, app: App, **options: Any) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.in_flight = 0
        events = Events()
        events.request_started.subscribe(self._count)
        events.request_finished.subscribe(lambda *values: self.told.append(values))
        options = {"signer": SIGNER, "events": events, "health": Health(), **options}
        self.app = Middleware(app, **options)

    def _count(self) -> None:
        self.in_flight += 1

    def call(self, path: str = "/", **changes: Any) -> Answer:
        return call(self.app, path, **changes)

    @property
    def last(self) -> dict[str, Any]:
        names = Events().request_finished.arguments
        return dict(zip(names, self.told[-1], strict=True))


def answering(body: bytes = b"hello", before: Callable[[Scope], None] = lambda scope: None) -> App:
    headers = [(b"content-type", b"text/plain")]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = current.current.get()
        assert context is not None
        before(context)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def raising(error: BaseException) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app


def write(scope: Scope) -> None:
    scope.bookmark.raise_to("main", Position(1, 500))
    scope.wrote = True


def token(offset: int, signer: Signer = SIGNER) -> bytes:
    bookmark = Bookmark()
    bookmark.raise_to("main", Position(1, offset))
    return signer.encode(bookmark).encode()


def position(text: bytes) -> Position | None:
    bookmark = SIGNER.decode(text.decode())
    assert bookmark is not None
    return bookmark.position("main")


# --- Scope ---------------------------------------------------------------------------------------


def test_a_request_runs_in_a_scope_of_its_own_which_ends_with_it() -> None:
    seen: list[Scope] = []
    wrapped = Wrapped(answering(before=seen.append))

    async def two() -> None:
        await request(wrapped.app, connection())
        await request(wrapped.app, connection())
        assert current.current.get() is None

    asyncio.run(two())
    assert seen[0] is not seen[1]
    assert seen[0].trace_id != seen[1].trace_id
    assert (len(seen[0].trace_id), len(seen[0].span_id), seen[0].parent_id) == (32, 16, "")


def test_the_callers_trace_goes_on() -> None:
    seen: list[Scope] = []
    tracing = endpoints.Telemetry(otlp_endpoint="http://127.0.0.1:1")
    wrapped = Wrapped(answering(before=seen.append), telemetry=tracing)
    wrapped.call(headers=[(b"traceparent", TRACEPARENT), (b"tracestate", b"vendor=1")])
    assert seen[0].trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert seen[0].parent_id == "b7ad6b7169203331"
    assert seen[0].span_id not in ("", seen[0].parent_id)
    assert seen[0].sampled
    assert seen[0].local == {"tracestate": "vendor=1"}


@pytest.mark.parametrize(
    "headers",
    [
        [(b"traceparent", b"00-short-b7ad6b7169203331-01")],
        [(b"traceparent", b"ff" + TRACEPARENT[2:])],
        [(b"traceparent", TRACEPARENT + b"-more")],
        [(b"traceparent", TRACEPARENT.upper())],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")],
        [(b"traceparent", TRACEPARENT), (b"traceparent", TRACEPARENT)],
        [(b"traceparent", b"01" + TRACEPARENT[2:] + b"-" + b"x" * 5000)],
    ],
)
def test_a_malformed_trace_begins_a_new_one(headers: list[tuple[bytes, bytes]]) -> None:
    seen: list[Scope] = []
    Wrapped(answering(before=seen.append)).call(headers=headers)
    assert seen[0].trace_id != "0af7651916cd43dd8448eb211c80319c"
    assert seen[0].parent_id == ""


def test_nothing_is_sampled_without_an_endpoint_whatever_the_caller_asks_for() -> None:
    seen: list[Scope] = []
    Wrapped(answering(before=seen.append)).call(headers=[(b"traceparent", TRACEPARENT)])
    assert not seen[0].sampled


# --- Bookmark ------------------------------------------------------------------------------------


def test_the_bookmark_is_read_from_header_and_cookie_and_merged() -> None:
    seen: list[Scope] = []
    wrapped = Wrapped(answering(before=seen.append))
    wrapped.call(headers=[(HEADER, token(7))])
    wrapped.call(headers=[(b"cookie", b"a=b; outgrow_bookmark=" + token(8) + b"; c=d")])
    wrapped.call(headers=[(HEADER, token(7)), (b"cookie", COOKIE + b"=" + token(9))])
    assert [scope.bookmark.position("main") for scope in seen] == [Position(1, n) for n in (7, 8, 9)]


@pytest.mark.parametrize(
    "value",
    [b"", b"x", b"\xff\xfe", b"A" * 5000, token(7)[:-2] + b"AA", token(7, FORGER), b"%00" * 20],
    ids=("none", "short", "no-text", "long", "changed", "of-another", "zeros"),
)
def test_a_forged_bookmark_proves_nothing(value: bytes) -> None:
    seen: list[Scope] = []
    wrapped = Wrapped(answering(before=seen.append))
    for headers in ([(HEADER, value)], [(b"cookie", COOKIE + b"=" + value)]):
        assert wrapped.call(headers=headers).status == 200
    assert all(not scope.bookmark.positions for scope in seen)


def test_a_cookie_set_by_a_subdomain_does_not_hide_the_true_one() -> None:
    seen: list[Scope] = []
    header = COOKIE + b"=" + token(900, FORGER) + b"; " + COOKIE + b"=" + token(9)
    Wrapped(answering(before=seen.append)).call(headers=[(b"cookie", header)])
    assert seen[0].bookmark.position("main") == Position(1, 9)
    assert len(cookie_values(b"; ".join([COOKIE + b"=x"] * 100))) == 4


def test_a_write_sets_header_and_cookie() -> None:
    answer = Wrapped(answering(before=write)).call(method="POST")
    assert position(answer.values(HEADER)[0]) == Position(1, 500)
    [cookie] = answer.values(b"set-cookie")
    assert cookie.startswith(COOKIE + b"=" + answer.values(HEADER)[0] + b"; ")
    assert cookie.endswith(b"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
    assert len(cookie) < 1024


def test_the_cookie_is_secure_on_https() -> None:
    [cookie] = Wrapped(answering(before=write)).call(method="PUT", scheme="https").values(b"set-cookie")
    assert cookie.endswith(b"; Secure")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_safe_method_never_sets_a_cookie(method: str) -> None:
    answer = Wrapped(answering(before=write)).call(method=method)
    assert answer.values(b"set-cookie") == []
    assert len(answer.values(HEADER)) == 1


def read(scope: Scope) -> None:
    scope.bookmark.saw("main", 77)


def test_what_a_browser_has_read_goes_into_a_cookie_of_its_own() -> None:
    """A slow answer to a GET may come after that to a write: it must not take its cookie's place."""
    carried = [(b"cookie", COOKIE + b"=" + token(8))]
    answer = Wrapped(answering(before=read)).call(headers=carried)
    [cookie] = answer.values(b"set-cookie")
    assert cookie.startswith(SEEN + b"=") and answer.values(b"cache-control") == [b"private"]
    bookmark = SIGNER.decode(answer.values(HEADER)[0].decode())
    assert bookmark is not None and bookmark.seen == {"main": 77}
    again = [(b"cookie", b"; ".join([COOKIE + b"=" + token(8), cookie.split(b";")[0]]))]
    answer = Wrapped(answering(before=read)).call(headers=again)
    assert answer.values(b"set-cookie") == [], "nothing is new"


def test_an_answer_that_a_shared_cache_may_keep_carries_no_cookie() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = current.current.get()
        assert context is not None
        read(context)
        headers = [(b"Cache-Control", b"Public, max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = Wrapped(app).call(headers=[(b"cookie", COOKIE + b"=" + token(8))])
    assert answer.values(b"set-cookie") == []
    assert answer.values(b"cache-control") == [b"Public, max-age=60"]


def test_who_has_no_bookmark_gets_none_for_reading() -> None:
    answer = Wrapped(answering(before=read)).call()
    assert answer.values(b"set-cookie") == answer.values(HEADER) == []
    began = Wrapped(answering(before=read)).call(headers=[(HEADER, b"new")])
    assert began.values(HEADER) and began.values(b"set-cookie") == []


def test_what_was_read_on_a_primary_has_a_position_when_it_leaves() -> None:
    async def settle(bookmark: Bookmark) -> None:
        await asyncio.sleep(0)
        bookmark.covers("main", Position(1, 900))

    def read_there(scope: Scope) -> None:
        read(scope)
        scope.unsettled = settle

    answer = Wrapped(answering(before=read_there)).call(headers=[(HEADER, token(8))])
    assert position(answer.values(HEADER)[0]) == Position(1, 900)
    assert answer.status == 200 and answer.body == b"hello"


def test_a_lost_write_is_409_and_its_answer_lets_the_session_go_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = current.current.get()
        assert context is not None
        context.bookmark.restart("main", Position(2, 300))
        context.restarted = True
        raise LostWrite("main", "1/500")

    wrapped = Wrapped(app)
    carried = [(b"cookie", b"; ".join([COOKIE + b"=" + token(500), SEEN + b"=" + token(700)]))]
    answer = wrapped.call(headers=carried)
    assert answer.status == 409 and answer.error is None and wrapped.last["status"] == 409
    assert answer.values(b"content-type") == [b"application/problem+json"]
    assert msgspec.json.decode(answer.body)["type"] == LOST_WRITE
    cookies = [each.split(b";")[0].partition(b"=") for each in answer.values(b"set-cookie")]
    assert [name for name, _, _ in cookies] == [COOKIE, SEEN], "also to a GET, and nothing of before is left"
    assert {position(value) for _, _, value in cookies} == {Position(2, 300)}


def test_a_client_that_uses_the_header_gets_no_cookie() -> None:
    answer = Wrapped(answering(before=write)).call(method="POST", headers=[(HEADER, token(7))])
    assert answer.values(b"set-cookie") == []
    assert position(answer.values(HEADER)[0]) == Position(1, 500)


def test_a_client_that_sends_any_header_begins_a_session() -> None:
    sessions = []
    wrapped = Wrapped(answering(before=lambda scope: sessions.append(scope.bookmark.session)))
    wrapped.call(headers=[(HEADER, b"hello")])
    wrapped.call()
    assert sessions[0] != 0 and sessions[1] == 0


def test_a_read_that_raised_the_bookmark_tells_those_who_sent_one() -> None:
    def read(scope: Scope) -> None:
        scope.bookmark.raise_to("main", Position(1, 600))

    wrapped = Wrapped(answering(before=read))
    assert position(wrapped.call(headers=[(HEADER, token(7))]).values(HEADER)[0]) == Position(1, 600)
    assert wrapped.call().values(HEADER) == []
    assert wrapped.call(headers=[(HEADER, token(900))]).values(HEADER) == []


def test_the_applications_own_list_of_headers_stays_as_it_is() -> None:
    wrapped = Wrapped(answering(before=write))
    for _ in range(3):
        assert len(wrapped.call(method="POST").headers) == 3


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unavailable("the primary is away", node="db"), Conflict("deadlock")])
def test_what_may_succeed_later_is_503(error: Exception) -> None:
    wrapped = Wrapped(raising(error))
    answer = wrapped.call("/x")
    assert (answer.status, answer.error) == (503, None)
    assert answer.values(b"retry-after") == [b"1"]
    assert answer.values(b"content-type") == [b"application/problem+json"]
    document = msgspec.json.decode(answer.body)
    assert document == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "trace_id": wrapped.last["scope"].trace_id,
    }
    assert (wrapped.last["status"], wrapped.last["error"]) == (503, type(error).__name__)


@pytest.mark.parametrize("error", [ValueError("secret detail"), UniqueViolation("secret detail")])
def test_everything_else_is_500_reveals_nothing_and_reaches_the_server(error: Exception) -> None:
    wrapped = Wrapped(raising(error))
    answer = wrapped.call()
    assert (answer.status, answer.error) == (500, error)
    assert b"secret" not in answer.body
    assert answer.values(b"content-length") == [b"%d" % len(answer.body)]
    assert vars(error)["__outgrow_trace__"][0] == wrapped.last["scope"].trace_id
    assert (wrapped.last["status"], wrapped.last["error"]) == (500, type(error).__name__)


def test_an_error_can_be_left_to_the_framework() -> None:
    async def broken(request: Request) -> Response:
        raise ValueError("broken")

    async def away(request: Request) -> Response:
        raise Unavailable("away")

    def handler(request: Request, error: Exception) -> Response:
        return JSONResponse({"mine": True}, 500)

    app = Starlette(routes=[Route("/b", broken), Route("/a", away)], exception_handlers={500: handler})
    events = Events()
    app.add_middleware(Middleware, signer=SIGNER, events=events, health=Health(), answers_errors=False)
    assert msgspec.json.decode(call(app, "/b").body) == {"mine": True}
    assert call(app, "/a").status == 503


def test_an_error_after_the_start_of_the_answer_is_raised_and_not_answered_twice() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise Unavailable("away")

    wrapped = Wrapped(app)
    answer = wrapped.call()
    assert (answer.status, answer.body) == (200, b"half")
    assert isinstance(answer.error, Unavailable)
    assert (wrapped.last["status"], wrapped.last["error"]) == (200, "Unavailable")


def test_a_bookmark_is_told_with_an_error_as_well() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = current.current.get()
        assert context is not None
        write(context)
        raise ValueError

    assert len(Wrapped(app).call(method="POST").values(HEADER)) == 1


def test_an_application_that_says_nothing_counts_as_an_error() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    wrapped = Wrapped(app)
    wrapped.call()
    assert (wrapped.last["status"], wrapped.last["error"]) == (500, "NoResponse")


# --- Cancellation and disconnects ----------------------------------------------------------------


def test_a_cancelled_request_is_told_once_and_not_answered() -> None:
    entered = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.sleep(60)

    wrapped = Wrapped(app)

    async def cancel() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        task = asyncio.create_task(wrapped.app(connection(), send, send))  # type: ignore[arg-type]
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sent == []

    asyncio.run(cancel())
    assert len(wrapped.told) == wrapped.in_flight == 1
    assert (wrapped.last["status"], wrapped.last["error"]) == (499, "CancelledError")


def test_a_client_that_goes_away_is_no_server_error() -> None:
    async def upload(request: Request) -> Response:
        await request.body()
        return Response()

    wrapped = Wrapped(Starlette(routes=[Route("/", upload, methods=["POST"])]))

    async def gone() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            return None

        with contextlib.suppress(Exception):
            await wrapped.app(connection(method="POST"), receive, send)

    asyncio.run(gone())
    assert wrapped.last["status"] == 499


def test_scopes_of_concurrent_requests_do_not_mix() -> None:
    async def endpoint(request: Request) -> Response:
        context = current.current.get()
        assert context is not None
        await asyncio.sleep(0.001)
        assert current.current.get() is context
        return PlainTextResponse(context.trace_id)

    wrapped = Wrapped(Starlette(routes=[Route("/", endpoint)]))

    async def many() -> list[Answer]:
        return await asyncio.gather(*(request(wrapped.app, connection()) for _ in range(50)))

    assert len({answer.body for answer in asyncio.run(many())}) == 50
    assert len(wrapped.told) == 50


# --- Other kinds of answers and connections ------------------------------------------------------


def test_a_stream_passes_piece_by_piece_and_is_timed_to_its_last_byte() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0.01)
            yield b"%d" % number

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(pieces())

    wrapped = Wrapped(Starlette(routes=[Route("/", endpoint)]))
    sent: list[dict[str, Any]] = []

    async def stream() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(60)
            return {}

        async def send(message: Any) -> None:
            sent.append(message)

        await wrapped.app(connection(), receive, send)

    asyncio.run(stream())
    assert [message.get("body") for message in sent[1:]] == [b"0", b"1", b"2", b""]
    assert wrapped.last["seconds"] >= 0.03


def test_background_work_is_not_counted_as_waiting() -> None:
    async def later() -> None:
        await asyncio.sleep(0.2)

    async def endpoint(request: Request) -> Response:
        return Response(background=BackgroundTask(later))

    wrapped = Wrapped(Starlette(routes=[Route("/", endpoint)]))
    wrapped.call()
    assert wrapped.last["seconds"] < 0.1


async def converse(app: App, scope: dict[str, Any], *phases: str) -> list[str]:
    """Send these messages to the application; returns the types of what it sent."""
    waiting = [{"type": f"{scope['type']}.{phase}", "text": "echo"} for phase in phases]
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        said.append(message["type"])

    await app(scope, receive, send)
    return said


def test_a_websocket_has_a_scope_and_lifespan_passes_through() -> None:
    seen: list[Scope | None] = []
    phases: list[str] = []

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        seen.append(current.current.get())
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    @contextlib.asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        phases.append(f"in {current.current.get()}")
        yield
        phases.append("out")

    wrapped = Wrapped(Starlette(routes=[WebSocketRoute("/ws", socket)], lifespan=lifespan))

    async def both() -> None:
        assert await converse(wrapped.app, {"type": "lifespan", "state": {}}, "startup", "shutdown") == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        opened = connection("/ws", type="websocket", headers=[(HEADER, token(7))], subprotocols=[])
        said = await converse(wrapped.app, opened, "connect", "receive")
        assert said == ["websocket.accept", "websocket.send", "websocket.close"]

    asyncio.run(both())
    assert phases == ["in None", "out"]
    assert seen[0] is not None
    assert seen[0].bookmark.position("main") == Position(1, 7)
    assert wrapped.told == []


# --- Routes --------------------------------------------------------------------------------------


async def _nothing(request: Request) -> Response:
    return Response()


def test_the_route_is_the_template_of_starlette() -> None:
    inner = Starlette(routes=[Route("/deep/{x}", _nothing)])
    app = Starlette(
        routes=[
            Route("/articles/{slug:str}", _nothing),
            Mount("/{tenant}", routes=[Route("/users/{id:int}", _nothing), Mount("/in", app=inner)]),
        ]
    )
    wrapped = Wrapped(app)
    routes = {}
    for path in ("/articles/a", "/acme/users/3", "/acme/in/deep/9", "/none", "/articles/a/b/c"):
        wrapped.call(path)
        routes[path] = wrapped.last["route"]
    assert routes == {
        "/articles/a": "/articles/{slug}",
        "/acme/users/3": "/{tenant}/users/{id}",
        "/acme/in/deep/9": "/{tenant}/in/deep/{x}",
        "/none": "unmatched",
        "/articles/a/b/c": "/{tenant}/{path}",
    }


def test_a_wrong_method_has_the_route_of_the_right_one() -> None:
    wrapped = Wrapped(Starlette(routes=[Route("/articles/{slug}", _nothing)]))
    wrapped.call("/articles/a", method="DELETE")
    assert (wrapped.last["route"], wrapped.last["status"]) == ("/articles/{slug}", 405)


def test_the_route_is_the_template_of_fastapi() -> None:
    fastapi = pytest.importorskip("fastapi")
    app, outer, inner = fastapi.FastAPI(), fastapi.APIRouter(), fastapi.APIRouter(prefix="/r")
    app.get("/top/{y}")(lambda y: {})
    inner.get("/items/{x}")(lambda x: {})
    outer.include_router(inner, prefix="/deep")
    app.include_router(outer, prefix="/api")
    app.include_router(outer, prefix="/again")
    whole = Starlette(routes=[Mount("/v1", app=app)])
    for wrapped, prefix in ((Wrapped(app), ""), (Wrapped(whole), "/v1")):
        routes = []
        for path in ("/top/1", "/api/deep/r/items/1", "/again/deep/r/items/1"):
            assert wrapped.call(prefix + path).status == 200
            routes.append(wrapped.last["route"])
        expected = ("/top/{y}", "/api/deep/r/items/{x}", "/again/deep/r/items/{x}")
        assert routes == [prefix + route for route in expected]


def test_the_route_is_the_template_of_litestar() -> None:
    litestar = pytest.importorskip("litestar")

    async def handler() -> None:
        return None

    router = litestar.Router("/api", route_handlers=[litestar.get("/z/{q:int}")(handler)])
    wrapped = Wrapped(litestar.Litestar([router]))
    assert wrapped.call("/api/z/3").status == 200
    assert wrapped.last["route"] == "/api/z/{q}"
    wrapped.call("/nothing")
    assert (wrapped.last["route"], wrapped.last["path"]) == ("unmatched", "/nothing")
