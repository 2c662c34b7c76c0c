"""How a process goes without losing a request: its connections end one by one, where it does no harm.

every answer from now on      Connection: close, so the client opens its next one elsewhere
/health and /health/deep      503, so a balancer sends nothing more
a connection without request  closed after a moment of quiet, unless a request has just come: nobody loses one

A process that stays can have the connections of this moment renewed: those on which a balancer of layer 4
that goes, or changes, has brought its clients.
"""

from __future__ import annotations

import asyncio
import fcntl
import termios
from collections.abc import Collection, MutableMapping
from typing import Any

QUIET_S = 5.0
"""Longer than clients with pools of connections commonly keep an idle one, so that they close first."""

LOOK_EVERY_S = 0.1


class Drain:
    """The state of this process. `connections` are the server's protocols, as uvicorn has them.

    `leaving` are the peers whose connection is to be renewed.
    """

    def __init__(self) -> None:
        self.active = False
        self.connections: Collection[Any] = ()
        self.leaving: set[tuple[str, int] | None] = set()
        self._quiet: dict[Any, tuple[object, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """From now on. A second call changes nothing."""
        self.active = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._close_what_is_quiet())

    def renew(self) -> None:
        """The next answer on each connection that there is now will be its last."""
        self.leaving = {each.client for each in self.connections if hasattr(each, "client")}

    def ends(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether this request's connection ends with its answer."""
        client = scope.get("client")
        if client in self.leaving:
            self.leaving.discard(client)
            return True
        return self.active

    async def _close_what_is_quiet(self) -> None:
        while True:
            now = asyncio.get_running_loop().time()
            quiet = {}
            for each in list(self.connections):
                last = getattr(each, "cycle", None)  # its last request; a WebSocket has none
                if last is None or last.response_complete:
                    before, since = self._quiet.get(each, (last, now))
                    quiet[each] = (last, since if before is last else now)
                    if now - quiet[each][1] >= QUIET_S and not _asks(each):
                        each.shutdown()
            self._quiet = quiet
            await asyncio.sleep(LOOK_EVERY_S)


def _asks(connection: Any) -> bool:
    """Whether a request has come that nobody has read: this process may not have run for a while."""
    waiting = bytearray(4)
    try:
        fcntl.ioctl(connection.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
    except (AttributeError, OSError):  # it is closing
        return False
    return any(waiting)


PROCESS = Drain()
"""There is one server in a process, and the fleet's hand (control.py) must find it."""


def closing(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A message of the server's protocol (ASGI); the start of an answer ends its connection."""
    if message["type"] != "http.response.start":
        return message
    kept = [each for each in message.get("headers") or () if each[0].lower() != b"connection"]
    return {**message, "headers": [*kept, (b"connection", b"close")]}
