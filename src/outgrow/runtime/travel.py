"""How a bookmark travels over HTTP: in a header for programs, in two cookies for browsers.

    Outgrow-Bookmark     a program sends back what it got last; with it, cookies do not matter
    outgrow_bookmark     what the session has written; set by answers to methods that write
    outgrow_seen         what it has read since; set by other answers, unless a shared cache may keep them

Two, because a browser keeps whichever answer came last. That of a slow GET, sent before a write, must not
take the place of what the write has left.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

HEADER = b"outgrow-bookmark"
COOKIE = b"outgrow_bookmark"
SEEN = b"outgrow_seen"
COOKIES_READ_MAX = 4

_SHARED = (b"public", b"s-maxage")
Headers = Iterable[tuple[bytes, bytes]]


class Carrier(IntEnum):
    """By what the caller has sent its bookmark."""

    NOTHING = 0
    COOKIE = 1
    HEADER = 2


def cookie_values(header: bytes) -> list[bytes]:
    """The bookmark cookies in a Cookie header: several, where a subdomain has set one, too."""
    found: list[bytes] = []
    for part in header.split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name in (COOKIE, SEEN) and len(found) < COOKIES_READ_MAX:
            found.append(value.strip(b'"'))
    return found


def stamped(
    message: dict[str, Any], token: bytes, cookies: tuple[bytes, ...], attributes: bytes
) -> dict[str, Any]:
    """The response's start with the bookmark, also in these cookies. The application's list stays.

    A cookie for what was read makes an answer private that says nothing of caches.
    """
    headers = list(message.get("headers") or ())
    if cookies == (SEEN,):
        control = _cache_control(headers)
        if any(word in control for word in _SHARED):
            cookies = ()
        elif not control:
            headers.append((b"cache-control", b"private"))
    headers.append((HEADER, token))
    headers += [(b"set-cookie", cookie + b"=" + token + attributes) for cookie in cookies]
    return {**message, "headers": headers}


def _cache_control(headers: Headers) -> bytes:
    return b",".join(value for name, value in headers if name.lower() == b"cache-control").lower()
