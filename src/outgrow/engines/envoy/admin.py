"""Asks a running Envoy over its admin socket, which only this user can open.

python -m outgrow.engines.envoy.admin SOCKET     exits with 0 when it accepts connections
"""

from __future__ import annotations

import os
import socket
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

TIMEOUT_S = 2.0


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket, whose path may be longer than the 108 bytes that its address holds."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Through the open folder, so that only the socket's own name counts."""
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{folder}/{self._path.name}")
        finally:
            os.close(folder)


LISTENERS = "listener_manager.total_listeners_active"


def ask(admin: Path, path: str, *, method: str = "GET") -> bytes:
    """The body of what the admin interface answers. Raises OSError when it does not, or says no."""
    connection = _UnixConnection(admin)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise OSError(f"Envoy answers {answer.status} to {path}")
    return body


def is_ready(admin: Path) -> bool:
    """Whether it listens: it does so once it has asked every server for its health.

    An open port would prove less: it may be another program's.
    """
    try:
        return ask(admin, "/ready") == b"LIVE\n" and int(figures(admin, LISTENERS).get(LISTENERS, 0)) > 0
    except (OSError, HTTPException):
        return False


def figures(admin: Path, pattern: str) -> dict[str, str]:
    """Its statistics whose names contain this pattern (RE2). Raises like `ask`."""
    lines = ask(admin, f"/stats?filter={pattern}").decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


if __name__ == "__main__":
    sys.exit(0 if is_ready(Path(sys.argv[1])) else 1)
