"""Who may look, what is answered, and that nothing can be changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outgrow.dashboard.app import App
from tests.support.asgi import Answer, call
from tests.support.source import SOURCE

STATIC = SOURCE / "dashboard" / "static"
LOCAL = [(b"host", b"127.0.0.1:9000")]


@pytest.fixture
def app(tmp_path: Path) -> App:
    (tmp_path / ".outgrow" / "data").mkdir(parents=True)
    logs = tmp_path / ".outgrow" / "logs"
    logs.mkdir()
    (logs / "app.log").write_text('{"ts":"2026-01-01T00:00:00.000Z","level":"info","message":"hello"}\n')
    return App(tmp_path, logs)


def ask(app: App, path: str, query: str = "", **changes: Any) -> Answer:
    return call(app, path, **{"headers": LOCAL, "query_string": query.encode(), **changes})


PATHS = (
    "/",
    "/static/app.js",
    "/api/snapshot",
    "/api/history",
    "/api/requests",
    "/api/events",
    "/api/logs",
    "/metrics",
    "/nowhere",
)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_closed_to_others(app: App, path: str) -> None:
    answer = ask(app, path)
    assert answer.status == (404 if path == "/nowhere" else 200)
    [policy] = answer.values(b"content-security-policy")
    assert b"default-src 'none'" in policy and b"unsafe" not in policy and b"frame-ancestors 'none'" in policy
    assert answer.values(b"x-content-type-options") == [b"nosniff"]
    assert ask(app, path, headers=[(b"host", b"evil.example")]).status == 403
    assert ask(app, path, headers=[*LOCAL, (b"x-forwarded-for", b"203.0.113.9")]).status == 403
    assert ask(app, path, client=("203.0.113.9", 1)).status == 403
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(app, path, method=method).status == 405
    assert ask(app, path, method="HEAD").body == b""


def test_a_page_of_somebody_else_gets_nothing(app: App) -> None:
    foreign = [*LOCAL, (b"sec-fetch-site", b"cross-site")]
    assert ask(app, "/api/snapshot", headers=foreign).status == 403
    assert ask(app, "/api/stream", headers=foreign).status == 403
    assert ask(app, "/", headers=foreign).status == 200, "a link may lead here"
    assert ask(app, "/api/snapshot", headers=[*LOCAL, (b"sec-fetch-site", b"same-origin")]).status == 200


def test_the_page_is_kept_while_it_is_the_same(app: App) -> None:
    [tag] = ask(app, "/").values(b"etag")
    again = ask(app, "/", headers=[*LOCAL, (b"if-none-match", tag)])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/history", "seconds=0&series=&x=%ff"),
        ("/api/history", "seconds=99999999999&series=nothing,%00"),
        ("/api/history", "seconds=-5"),
        ("/api/requests", "limit=-1&offset=abc&order=&reason=<script>&upto=99999999999999999999"),
        ("/api/logs", "cursor=nonsense&node=../../etc/passwd&search=%ff"),
        ("/api/logs", 'cursor={"app":-1}'),
        ("/api/logs", 'cursor={"app":99999999}'),
        ("/api/events", "after=x"),
    ],
)
def test_queries_that_make_no_sense(app: App, path: str, query: str) -> None:
    answer = ask(app, path, query)
    assert answer.error is None and answer.status == 200
    msgspec.json.decode(answer.body)


def test_before_the_first_look_there_is_nothing(app: App) -> None:
    assert ask(app, "/api/snapshot").body == b"null"


def test_logs(app: App) -> None:
    tail = msgspec.json.decode(ask(app, "/api/logs").body)
    assert tail["nodes"] == ["app"] and len(tail["lines"]) == 1
    again = msgspec.json.decode(
        ask(app, "/api/logs", "cursor=" + msgspec.json.encode(tail["cursor"]).decode()).body
    )
    assert again["lines"] == []


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        addresses = set(re.findall(r"https?://[^\s\"'`]*", text)) - {"http://www.w3.org/2000/svg", "http://"}
        assert addresses == set(), path.name
        assert "innerHTML" not in text and "eval(" not in text and "document.write" not in text, path.name
    named = set(re.findall(r"/static/([\w.]+)", "".join(path.read_text() for path in STATIC.iterdir())))
    assert named == {path.name for path in STATIC.iterdir()} - {"index.html"}


def test_it_loads_no_driver_and_no_framework() -> None:
    code = "import sys, outgrow.dashboard.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"sqlalchemy", "alembic", "asyncpg", "sqlite3", "starlette", "opentelemetry"} == set()


def test_the_page_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 120_000
