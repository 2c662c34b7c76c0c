"""One user: what they have captured, carry and know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outgrow.load.facts import Facts
from outgrow.load.template import Template
from outgrow.load.values import header_lines

BOOKMARK_HEADER = b"outgrow-bookmark"
BOOKMARK_COOKIE = b"outgrow_bookmark"


class User:
    """One user's variables, cookies, bookmark and facts."""

    __slots__ = ("_head", "bookmark", "cookies", "facts", "variables")

    def __init__(self, number: int, run: str) -> None:
        self.variables: dict[str, Any] = {"user": number, "run": run}
        self.cookies: dict[bytes, bytes] = {}
        self.bookmark = b""
        self.facts = Facts()
        self._head: bytes | None = None

    def capture(self, name: str, value: Any) -> None:
        """A variable has this value from now on."""
        self.variables[name] = value
        self._head = None

    def head(self, headers: Mapping[str, Template]) -> bytes:
        """Their headers, made once until a variable changes, but for those whose names have no value yet."""
        if self._head is None:
            known = {name: each for name, each in headers.items() if each.roots <= self.variables.keys()}
            self._head = header_lines(known, self.variables)
        head = self._head
        if self.bookmark:
            head += BOOKMARK_HEADER + b": " + self.bookmark + b"\r\n"
        if self.cookies:
            head += b"cookie: " + b"; ".join(b"%s=%s" % each for each in self.cookies.items()) + b"\r\n"
        return head

    def keep_session(self, headers: list[tuple[bytes, bytes]], *, bookmark: bool) -> None:
        """What the headers of an answer say to keep; the bookmark only if it is to be sent back."""
        for name, value in headers:
            if name == BOOKMARK_HEADER:
                self.bookmark = value if bookmark else b""
            elif name == b"set-cookie":
                _keep_cookie(self.cookies, value, bookmark=bookmark)


def _keep_cookie(cookies: dict[bytes, bytes], header: bytes, *, bookmark: bool) -> None:
    pair, _, attributes = header.partition(b";")
    name, _, value = pair.partition(b"=")
    name = name.strip()
    if name == BOOKMARK_COOKIE and not bookmark:
        return
    if b"max-age=0" in attributes.lower().replace(b" ", b"").split(b";"):
        cookies.pop(name, None)
    else:
        cookies[name] = value.strip()
