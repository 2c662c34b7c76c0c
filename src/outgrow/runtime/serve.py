"""The entry of an application process: `python -m outgrow.runtime.serve`.

    OUTGROW_APP          module:attribute of the ASGI application
    OUTGROW_LISTEN_FDS   the descriptors of inherited listening sockets, with commas between them;
                         without it, it listens on OUTGROW_HOST (127.0.0.1) and OUTGROW_PORT (8000)
    OUTGROW_PROXIES      hosts of balancers, with commas between them, that overwrite X-Forwarded-For and
                         X-Forwarded-Proto: what they say there is the client; nobody else is believed
    OUTGROW_RELAYS       hosts of balancers that pass bytes on: nobody knows who is behind them
    OUTGROW_WARM_UP      paths, with spaces between them, that it answers to itself before it begins

Exit codes: 0 after SIGTERM or SIGINT, once the requests under way are answered; 78 when the application
is broken, after one JSON line that says why (see failure.py); 3 when it could not start this time.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from outgrow import endpoints
from outgrow.errors import EXIT_TOLD, ApplicationBroken, OutgrowError
from outgrow.runtime.asgi import App, ASGIScope, Message, OwnPaths, Receive, Send
from outgrow.runtime.drain import PROCESS, closing
from outgrow.runtime.failure import tell
from outgrow.runtime.health import Health
from outgrow.runtime.loading import load
from outgrow.runtime.telemetry import logs
from outgrow.runtime.warm_up import warm_up

EXIT_NOT_STARTED = 3
GRACE_S = 8
"""For requests under way; less than the supervisor's patience (workload.Stop.grace_s)."""

GC_THRESHOLD = 5_000
"""Containers made before the collector looks at the young ones. At Python's usual 700 a cache of some ten
thousand entries, all of them long-lived, cost each request a tenth of its CPU."""

MIDDLE_COLLECTION_AFTER = 4
"""Such looks before one at what they have left (Python: 10). Each container is looked at once either way, but
the fewer at a time, the shorter the stop: 20,000 take some ten milliseconds."""

KEEP_ALIVE_S = 75
"""Longer than the 60 s for which balancers keep idle connections, so that they close first."""

FULL_COLLECTION_AFTER = 500
"""Collections of the middle generation before one that looks at everything (Python: 10).

With a full cache of 50,000 entries such a look went with stops of one to two seconds on a busy core. What a
request leaves behind in circles is young.
"""


class Guarded:
    """The application, with its start watched.

    Answers /health itself, since the fleet asks for it before it calls a process ready, also of an
    application that does not use Outgrow's middleware.
    """

    def __init__(self, app: App, relays: Collection[str] = (), warm_up: Sequence[str] = ()) -> None:
        self._app = app
        self._relays = relays
        self._warm_up = warm_up
        self._health = Health()
        self._shallow = OwnPaths(self._health, endpoints.Telemetry(), None).shallow
        self.failure: BaseException | None = None

    def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http" and (PROCESS.active or PROCESS.leaving) and PROCESS.ends(scope):
            self._health.stopping = PROCESS.active
            send = _ending(send)
        if kind == "http" and scope["path"] == "/health":
            return self._shallow(scope, send)
        if kind == "lifespan":
            return self._watch(scope, receive, send)
        if self._relays and (client := scope.get("client")) and client[0] in self._relays:
            scope["client"] = None  # else whoever comes through it would seem to be on this machine
        return self._app(scope, receive, send)

    async def _watch(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Remember what start-up raised. An application that knows no lifespan may raise at once."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "lifespan.startup.complete":
                started = True
                await warm_up(self._app, self._warm_up, scope.get("state", {}))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException as error:
            if not started:
                self.failure = error
            raise


def _ending(send: Send) -> Send:
    def ending(message: Message) -> Awaitable[None]:
        return send(closing(message))

    return ending


class Server(uvicorn.Server):
    """uvicorn that ends with exit code 0 when it was asked to end, not with the signal itself."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """While it serves, both signals ask it to end; uvicorn would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def inherited_sockets(environment: dict[str, str]) -> list[socket.socket] | None:
    """The listening sockets that the supervisor has opened, or None. Not passed on to children."""
    descriptors = environment.get("OUTGROW_LISTEN_FDS")
    if not descriptors:
        return None
    sockets = [socket.socket(fileno=int(each)) for each in descriptors.split(",")]
    for each in sockets:
        each.set_inheritable(False)
    return sockets


def hosts(environment: dict[str, str], name: str) -> list[str]:
    """The hosts that this variable lists."""
    return [host for host in environment.get(name, "").split(",") if host]


def configuration(app: App, environment: dict[str, str]) -> uvicorn.Config:
    """uvicorn with what is fastest, and without what Outgrow does itself (logs) or nobody needs."""
    return uvicorn.Config(
        app,
        host=environment.get("OUTGROW_HOST", "127.0.0.1"),
        port=int(environment.get("OUTGROW_PORT") or 8000),
        loop="uvloop",
        http="httptools",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # see behind_proxies
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def behind_proxies(app: App, proxies: list[str]) -> App:
    """The application, told of the client that these say; whoever else could name any address as its own.

    It is inside of Guarded, which has to know the connection itself.
    """
    return cast("App", ProxyHeadersMiddleware(cast("Any", app), trusted_hosts=proxies)) if proxies else app


def serve(app: App, environment: dict[str, str]) -> int:
    """Serve until a signal; returns the exit code."""
    app = behind_proxies(app, hosts(environment, "OUTGROW_PROXIES"))
    paths = environment.get("OUTGROW_WARM_UP", "").split()
    guarded = Guarded(app, hosts(environment, "OUTGROW_RELAYS"), paths)
    server = Server(configuration(guarded, environment))
    PROCESS.connections = server.server_state.connections
    # What the imports made lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, MIDDLE_COLLECTION_AFTER, FULL_COLLECTION_AFTER)
    try:
        server.run(sockets=inherited_sockets(environment))
    except SystemExit:
        pass  # uvicorn's way to say that start-up failed
    except OSError as error:
        sys.stderr.write(f"cannot listen: {error}\n")
        return EXIT_NOT_STARTED
    if server.started:
        return 0
    failure = guarded.failure
    logs.stderr_lines().flush(1.0)
    if failure is None or _may_pass(failure):
        return EXIT_NOT_STARTED
    tell(failure)
    return EXIT_TOLD


def _may_pass(failure: BaseException) -> bool:
    """Whether another try may succeed: what it depends on was not there (yet)."""
    if isinstance(failure, OutgrowError):
        return getattr(failure, "retryable", False) is True
    return isinstance(failure, OSError | TimeoutError)


def main() -> int:
    """Load and serve the application that the environment names; returns the exit code."""
    environment = dict(os.environ)
    try:
        app = load(environment.get("OUTGROW_APP", ""), key="application.app")
        if not callable(app):
            kind = type(app).__name__
            raise ApplicationBroken(
                f"application.app names a {kind}, which is not an ASGI application",
                hint='name the object that serves, such as "app:app"',
            )
    except OutgrowError as error:
        tell(error)
        return EXIT_TOLD
    logs.install()
    return serve(app, environment)


if __name__ == "__main__":
    sys.exit(main())
