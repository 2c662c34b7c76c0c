"""Asks a running Envoy over its admin socket, which only this user can open."""

from __future__ import annotations

import os
import socket
from http.client import HTTPConnection
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
