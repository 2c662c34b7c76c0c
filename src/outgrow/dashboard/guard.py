"""Who may change something from the page: the fleet's own user, with this page, and no page of others.

A request that changes something must pass all of these, each of which another kind of attacker fails:

    a direct caller on this machine that says this machine's name       DNS rebinding, proxies (app.py)
    Origin is this dashboard, and Sec-Fetch-Site says same-origin       pages of others
    JSON, so that no form can send it, and no answer ever allows CORS   forms
    the cookie (SameSite=Strict, HttpOnly) and the token of a header    pages of others, another dashboard
    the other end of the connection belongs to the fleet's user         other users of this machine
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from outgrow.runtime.asgi import ASGIScope

SOCKETS = Path("/proc/net/tcp")
"""Every TCP connection of this machine over IPv4, with the user of each end that is here."""

TOKEN = b"outgrow-token"


class Guard:
    """One dashboard's. Cookie and token are new with each process."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._cookie = secrets.token_urlsafe(32)
        self.token = secrets.token_urlsafe(32)

    def closed_to(self, scope: ASGIScope) -> str:
        """Why this caller may change nothing at all, whatever it sends; empty when it may."""
        if not self._enabled:
            return "outgrow.toml says [dashboard] actions = false"
        if _owner(scope) not in (os.getuid(), 0):
            return "only the user who runs this fleet may change it"
        return ""

    def refusal(self, scope: ASGIScope) -> str:
        """Why this request may not change anything; empty when it may."""
        headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]):
            return "a header is there twice"
        host = headers.get(b"host", b"")
        if not host or headers.get(b"origin") != b"http://" + host:
            return "this page belongs to somebody else"
        if headers.get(b"sec-fetch-site", b"same-origin") != b"same-origin":
            return "this page belongs to somebody else"
        if headers.get(b"content-type") != b"application/json":
            return "JSON is expected"
        given = _cookies(headers.get(b"cookie", b"")).get(cookie_name(host), b"")
        token = headers.get(TOKEN, b"")
        if not (_same(given, self._cookie) and _same(token, self.token)):
            return "the token is missing, or that of an earlier dashboard: load the page again"
        return self.closed_to(scope)

    def cookie(self, scope: ASGIScope) -> bytes:
        """The Set-Cookie header for this caller. Cookies know no port, so the name does."""
        host = dict(scope["headers"]).get(b"host", b"")
        return b"%s=%s; Path=/api; HttpOnly; SameSite=Strict" % (cookie_name(host), self._cookie.encode())


def cookie_name(host: bytes) -> bytes:
    """Of the dashboard at this address."""
    port = host.rpartition(b":")[2]
    return b"outgrow-dashboard-" + (port if port.isdigit() else b"80")


def _same(given: bytes, wanted: str) -> bool:
    return secrets.compare_digest(given, wanted.encode())


def _cookies(header: bytes) -> dict[bytes, bytes]:
    pairs = (part.strip().partition(b"=") for part in header.split(b";"))
    return {name: value for name, _, value in pairs}


def _owner(scope: ASGIScope) -> int | None:
    """The user whose program has opened this connection; None when the kernel does not know it."""
    client, server = scope.get("client"), scope.get("server")
    if not client or not server:
        return None
    try:
        ends = [_as_listed(*client), _as_listed(*server)]
        lines = SOCKETS.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[7])
    return None


def _as_listed(host: str, port: int) -> str:
    """As /proc/net/tcp writes an address: the kernel's own order of bytes. Raises OSError."""
    number = int.from_bytes(socket.inet_aton(host), "little")
    return f"{number:08X}:{port:04X}"
