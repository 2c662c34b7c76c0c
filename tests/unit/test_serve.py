"""An application process: real ones, on sockets that this test opens, ended by real signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from outgrow.runtime import serve

APP = """\
import asyncio, gc, logging, os
print("imported", os.getpid())
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        logging.getLogger("app").info("the lifespan ends")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    if scope["path"] == "/collector":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(gc.get_threshold()[2]).encode()})
        return
    if scope["path"] == "/broken":
        raise ValueError("broken\\nline")
    client = scope["client"][0].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": client})
"""


class Process:
    """`python -m outgrow.runtime.serve` in a directory, with one inherited socket."""

    def __init__(self, directory: Path, reference: str = "app:app", **variables: str) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outgrow.runtime.serve"],
                cwd=directory,
                env={
                    **os.environ,
                    **variables,
                    "OUTGROW_APP": reference,
                    "OUTGROW_LISTEN_FDS": str(listener.fileno()),
                },
                pass_fds=(listener.fileno(),),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10, **options)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[dict[str, Any]]]:
        """Send a signal and wait; returns exit code and log."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, list[dict[str, Any]]]:
        _, log = self.process.communicate(timeout=20)
        return self.process.returncode, [msgspec.json.decode(line) for line in log.splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(text: str = APP, reference: str = "app:app", **variables: str) -> Process:
        (tmp_path / "app.py").write_text(text)
        started.append(Process(tmp_path, reference, **variables))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_it_serves_on_the_inherited_socket_and_ends_with_0(start: Callable[..., Process]) -> None:
    served = start()
    assert served.get("/health").json() == {"status": "ok"}
    answer = served.get("/", headers={"x-forwarded-for": "203.0.113.9"})
    assert (answer.status_code, answer.text) == (200, "127.0.0.1")
    assert "server" not in answer.headers
    assert served.get("/broken").status_code == 500
    code, log = served.end()
    assert code == 0
    broken = [line for line in log if "exception" in line]
    assert len(broken) == 1
    assert "ValueError: broken\nline" in broken[0]["exception"]
    assert "the lifespan ends" in [line["message"] for line in log]


def test_a_full_cache_is_not_looked_through_again_and_again(start: Callable[..., Process]) -> None:
    served = start()
    assert int(served.get("/collector").text) == serve.FULL_COLLECTION_AFTER
    served.end()


WARMED = (
    APP.replace(
        "    client = scope",
        """\
    if scope["path"] == "/asked":
        asked = f"{paths[:-1]}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": asked})
        return
    client = scope""",
    )
    .replace("import asyncio", "paths = []\nimport asyncio")
    .replace(
        '    if scope["path"] == "/slow"', '    paths.append(scope["path"])\n    if scope["path"] == "/slow"'
    )
)


def test_it_asks_itself_before_anybody_else_does(start: Callable[..., Process]) -> None:
    served = start(WARMED, OUTGROW_WARM_UP="/first?page=1 /broken /na%20me")
    assert served.get("/asked").text == str(["/first"] * 4 + ["/broken"] * 4 + ["/na me"] * 4)
    _, log = served.end()
    said = [line["message"] for line in log if line.get("logger") == "outgrow.warm_up"]
    assert said[0] == "warm-up: GET /broken"
    assert said[-1] == "warm-up: GET /broken was answered with 500"


def test_a_request_under_way_is_answered_before_the_end(start: Callable[..., Process]) -> None:
    served = start()
    served.get("/health")
    with httpx.Client(base_url=served.url, timeout=10) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.get, "/slow")
        time.sleep(0.3)  # it takes one second
        code, _ = served.end(signal.SIGINT)
        assert slow.result().status_code == 200
    assert code == 0


DRAINING = APP.replace(
    "    client = scope",
    """    if scope["path"] in ("/drain", "/renew"):
        from outgrow.runtime import drain
        drain.QUIET_S = 0.5
        drain.PROCESS.begin() if scope["path"] == "/drain" else drain.PROCESS.renew()
    client = scope""",
)


def test_who_its_client_is_only_a_proxy_may_say(start: Callable[..., Process]) -> None:
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    assert start(OUTGROW_PROXIES="127.0.0.1").get("/", headers=forwarded).text == "192.0.2.7"
    assert start(OUTGROW_PROXIES="127.9.9.9").get("/", headers=forwarded).text == "127.0.0.1"
    assert start().get("/", headers=forwarded).text == "127.0.0.1"


def test_a_process_that_drains_ends_every_connection_and_breaks_none(start: Callable[..., Process]) -> None:
    served = start(DRAINING)
    served.get("/health")
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
    with ThreadPoolExecutor(1) as pool, socket.create_connection(address, 10) as quiet:
        with httpx.Client(base_url=served.url, timeout=10) as used:
            assert "connection" not in used.get("/").headers
            slow = pool.submit(httpx.get, served.url + "/slow", timeout=10)
            time.sleep(0.2)
            served.get("/drain")
            assert used.get("/").headers["connection"] == "close"
            assert used.get("/").status_code == 200, "a new connection is still served"
            answer = used.get("/health")
            assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})
        began = time.monotonic()
        assert quiet.recv(1) == b"", "closed after it has been quiet"
        assert time.monotonic() - began > 0.2
        assert slow.result().status_code == 200
    assert served.end()[0] == 0


def test_a_request_that_came_while_the_process_stood_still_is_answered(start: Callable[..., Process]) -> None:
    """As on a machine that is too busy: its connection has been quiet for long enough to be closed."""
    served = start(DRAINING)
    served.get("/health")
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
    with socket.create_connection(address, 10) as quiet:
        served.get("/drain")
        time.sleep(0.3)
        served.process.send_signal(signal.SIGSTOP)
        time.sleep(0.4)
        quiet.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        served.process.send_signal(signal.SIGCONT)
        assert quiet.recv(15) == b"HTTP/1.1 200 OK"
    assert served.end()[0] == 0


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"])
def test_the_connections_of_a_moment_are_renewed(start: Callable[..., Process], proxies: str) -> None:
    """Also those of a balancer that says who its client is: the connection is its own."""
    served = start(DRAINING, OUTGROW_PROXIES=proxies)
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    with httpx.Client(base_url=served.url, timeout=10, headers=forwarded) as client:
        client.get("/")
        served.get("/renew")
        answer = client.get("/health")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert "connection" not in client.get("/health").headers
        assert "connection" not in client.get("/").headers
    served.end()


@pytest.mark.parametrize(
    ("text", "reference", "fatal", "hint"),
    [
        ("import", "app:app", "app.py, line 1: SyntaxError", "without an error"),
        ("\n\nx = undefined\n", "app:app", "app.py, line 3: NameError: name 'undefined'", "without an error"),
        (
            "import nowhere_to_be_found\n",
            "app:app",
            "app.py, line 1: ModuleNotFoundError",
            "'nowhere_to_be_found'",
        ),
        ("import sys; sys.exit('no')\n", "app:app", "app.py, line 1: SystemExit: no", ""),
        ("application = print\ndef _hidden(): ...\n", "app:app", "has no 'app'", "it has: application"),
        ("app = 3\n", "app:app", "names a int, which is not an ASGI application", "app:app"),
        (APP, "missing.module:app", "names the module 'missing.module', and there is none in", "directory"),
        (APP, "app", "not of the form module:attribute", "app:app"),
    ],
)
def test_an_application_that_does_not_import_says_so_in_one_line(
    start: Callable[..., Process], text: str, reference: str, fatal: str, hint: str
) -> None:
    code, log = start(text, reference).wait()
    assert code == 78
    [line] = log
    assert fatal in line["fatal"]
    assert hint in line["hint"]
    assert "importlib" not in line.get("traceback", "")
    assert "loading.py" not in line.get("traceback", "")


LIFESPAN = """\
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from outgrow.errors import Misuse, Unavailable
@asynccontextmanager
async def lifespan(app):
    raise {error}
    yield
app = Starlette(lifespan=lifespan)
"""


@pytest.mark.parametrize(
    ("error", "code", "fatal"),
    [
        ('Misuse("the table is missing", hint="migrate")', 78, "the table is missing"),
        ('KeyError("setting")', 78, "app.py, line 6: KeyError: 'setting'"),
        ('Unavailable("the database is away")', 3, None),
        ('ConnectionRefusedError("db")', 3, None),
    ],
)
def test_a_start_that_fails_is_broken_unless_another_try_may_succeed(
    start: Callable[..., Process], error: str, code: int, fatal: str | None
) -> None:
    ended, log = start(LIFESPAN.format(error=error)).wait()
    assert ended == code
    assert [line["fatal"] for line in log if "fatal" in line] == ([] if fatal is None else [fatal])


def test_an_application_without_lifespan_is_served(start: Callable[..., Process]) -> None:
    served = start('async def app(scope, receive, send):\n    assert scope["type"] == "http"\n')
    assert served.get("/health").status_code == 200
    assert served.end()[0] == 0
