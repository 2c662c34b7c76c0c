"""Redis as the fleet runs it for the sessions: who may do what, what is kept, what is secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from outgrow import endpoints
from outgrow.engines.redis import redis as engine
from outgrow.engines.redis import sessions as redis_sessions
from outgrow.errors import EngineMissing
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.redis import in_file, program

APPLICATION = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from outgrow import Outgrow

og = Outgrow()


async def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse(request.session["visits"])


async def plain(request):
    return JSONResponse("plain")


app = Starlette(routes=[Route("/visit", visit), Route("/plain", plain)], lifespan=og.lifespan)
og.install(app)
"""


def make(directory: Path) -> RunningFleet:
    program()
    application = make_application(directory)
    (application / "app.py").write_text(APPLICATION)
    topology = application / "outgrow.toml"
    text = topology.read_text().replace('seed = "app:seed"', "")
    topology.write_text(f'{text}\n[sessions]\nengine = "redis"\n[dashboard]\nenabled = false\n')
    return RunningFleet(application)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """One for the tests that only look."""
    made = make(tmp_path_factory.mktemp("fleet") / "hello")
    try:
        made.start()
        yield made
    finally:
        made.end()
        assert made.pids() == []


def password(fleet: RunningFleet) -> str:
    return endpoints.read_secrets(fleet.state.placement().secrets).passwords["sessions"]


def client(fleet: RunningFleet, user: str, secret: str | None) -> Any:
    address = fleet.node(redis_sessions.NAME).address
    assert address is not None
    host, _, port = address.rpartition(":")
    return redis.asyncio.Redis(host=host, port=int(port), username=user, password=secret, protocol=2)


def test_a_visitor_is_known_again(fleet: RunningFleet) -> None:
    assert [node.name for node in fleet.status().nodes] == ["redis-sessions", "migrate", "app"]
    with httpx.Client(base_url=fleet.url) as visitor:
        assert [visitor.get("/visit").json() for _ in range(3)] == [1, 2, 3]
    assert httpx.get(f"{fleet.url}/visit").json() == 1


@pytest.mark.parametrize(
    "forbidden",
    [
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("DEBUG", "SLEEP", "1"),
        ("SHUTDOWN",),
        ("MONITOR",),
        ("REPLICAOF", "127.0.0.1", "1"),
        ("MODULE", "LOAD", "/tmp/x.so"),
        ("CLIENT", "LIST"),
        ("PUBLISH", "channel", "x"),
        ("EVAL", "return 1", "0"),
        ("SET", "outgrow:hello:session:x", "1"),
        ("HGET", "another", "data"),
        ("HSET", "outgrow:other:session:x", "data", "x"),
        ("DEL", "another"),
    ],
    ids=" ".join,
)
async def test_the_applications_user_may_not(fleet: RunningFleet, forbidden: tuple[str, ...]) -> None:
    connection = client(fleet, "hello", password(fleet))
    try:
        with pytest.raises(ResponseError, match=r"permission|command not allowed|can't access"):
            await connection.execute_command(*forbidden)
    finally:
        await connection.aclose()


async def test_a_script_may_not_more_than_its_user(fleet: RunningFleet) -> None:
    connection = client(fleet, "hello", password(fleet))
    try:
        script = connection.register_script("return redis.call('HGET', 'another', 'data')")
        with pytest.raises(
            Exception, match=r"can't access at least one of the keys|No permissions to access a key"
        ):
            await script()
    finally:
        await connection.aclose()


async def test_nobody_enters_without_the_password(fleet: RunningFleet) -> None:
    for user in ("default", "hello", "stranger"):
        for wrong in ("", "wrong"):
            connection = client(fleet, user, wrong)
            with pytest.raises((AuthenticationError, NoPermissionError)):
                await connection.ping()
            await connection.aclose()
    bare = client(fleet, "", None)
    with pytest.raises(AuthenticationError):
        await bare.ping()
    await bare.aclose()


def test_no_password_is_to_be_seen(fleet: RunningFleet) -> None:
    secret = password(fleet)
    place = fleet.state.placement()
    shown = [path.read_text(errors="replace") for path in fleet.state.logs.iterdir()]
    shown += [path.read_text(errors="replace") for path in place.data.rglob("*") if path.is_file()]
    shown.append(place.endpoints.read_text())
    for pid in fleet.pids():
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())
        shown.append(Path(f"/proc/{pid}/environ").read_text(errors="replace"))
    assert not any(secret in text for text in shown)
    for file in ("redis-sessions.conf", "redis-sessions-access.conf"):
        assert (place.data / file).stat().st_mode & 0o077 == 0


def test_it_runs_without_root_and_is_known_as_ours(fleet: RunningFleet) -> None:
    pid = fleet.node(redis_sessions.NAME).pid
    assert pid is not None and pid in fleet.pids()
    mapped = Path(f"/proc/{pid}/uid_map").read_text().split()
    status = Path(f"/proc/{pid}/status").read_text()
    real = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1]
    assert mapped[0] == "65534" if real == "0" else real != "0"


def test_killed_and_back_with_its_sessions(tmp_path: Path) -> None:
    fleet = make(tmp_path / "hello")
    try:
        fleet.start()
        with httpx.Client(base_url=fleet.url, timeout=10) as visitor:
            assert visitor.get("/visit").json() == 1
            cookie = dict(visitor.cookies)
            data = fleet.state.placement().data / redis_sessions.NAME
            wait_until(lambda: in_file(data, b'"visits":1'), "the session in the append-only file")
            fleet.kill(redis_sessions.NAME)
            assert visitor.get("/plain").json() == "plain"
            wait_until(lambda: fleet.node(redis_sessions.NAME).restarts == 1, "the death to be seen")
            wait_until(lambda: visitor.get("/visit").status_code == 200, "the sessions again")
            assert visitor.get("/visit").json() == 3
            assert dict(visitor.cookies) == cookie
            fleet.end()
            fleet.start()
            assert visitor.get("/visit").json() == 4, "data is kept between runs"
            wait_until(lambda: in_file(data, b'"visits":4'), "that visit in it, too")
            fleet.kill_supervisor()
            fleet.start()
            assert visitor.get("/visit").json() == 5
            assert dict(visitor.cookies) == cookie
    finally:
        fleet.end()
        assert fleet.pids() == []


def test_a_missing_program_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineMissing, match="Redis 7 or newer") as caught:
        engine.find()
    assert "apt-get install redis-server" in caught.value.hint
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0'\n")
    old.chmod(0o755)
    with pytest.raises(EngineMissing, match=r"v=6\.2\.14"):
        engine.find()
    valkey = tmp_path / "valkey-server"
    valkey.write_text("#!/bin/sh\necho 'Valkey server v=8.1.0 sha=0'\n")
    valkey.chmod(0o755)
    assert engine.find() == valkey
