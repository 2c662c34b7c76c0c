"""A request of the scenario, compiled: what is sent, and what its answer must be, shows and makes true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from outgrow.load.facts import Facts
from outgrow.load.profile import Read, Request, Write
from outgrow.load.template import MISSING, Document, Place, Template
from outgrow.load.values import Values, header_lines


class Step:
    """A request of the scenario, compiled."""

    def __init__(self, name: str, request: Request, prefix: str) -> None:
        self.name = name
        self.signed_in = request.signed_in
        self.status = request.status
        self._method = request.method
        self._prefix = prefix
        self._path = Template(request.path)
        self._headers = {key: Template(text) for key, text in request.headers.items()}
        self._json = None if request.json is msgspec.UNSET else Document(request.json)
        self._has = [Place(text) for text in request.has]
        self._equals = [(Place(text), Document(value)) for text, value in request.equals.items()]
        self.capture = {key: Place(text) for key, text in request.capture.items()}
        self.reads = [Showing(read) for read in request.reads]
        self.writes = [Making(write) for write in request.writes]
        self.looks_inside = bool(self._has or self._equals or self.capture or self.reads or self.writes)

    def lines(self, values: Mapping[str, Any]) -> bytes:
        """The request line, and the headers of this request alone."""
        path = self._prefix + self._path.address(values)
        line = f"{self._method} {path} HTTP/1.1\r\n".encode()
        return line + header_lines(self._headers, values) if self._headers else line

    def body(self, values: Mapping[str, Any]) -> bytes:
        """The body with the headers that tell of it, and the empty line between them."""
        if self._json is None:
            # A length tells servers and proxies that a POST without a body has none to wait for.
            return b"\r\n" if self._method == "GET" else b"content-length: 0\r\n\r\n"
        body = msgspec.json.encode(self._json.fill(values))
        return b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def complaint(self, document: Any, values: Mapping[str, Any]) -> str:
        """What the answer lacks; nothing when it has all that it must have."""
        for place in (*self._has, *self.capture.values()):
            if place.find(document) is MISSING:
                return f"there is no {place.text}"
        for place, wanted in self._equals:
            value, found = wanted.fill(values), place.find(document)
            if found != value:
                return f"{place.text} is {found!r}, not {value!r}"
        return ""


class Showing:
    """What an answer shows of a fact, compiled."""

    def __init__(self, read: Read) -> None:
        self._fact = Template(read.fact)
        self._at = Place(read.at)
        self._each = Place(read.each) if read.each else None
        self.rises = read.rises
        self._at_most = read.at_most

    def may_be_cut(self, shown: Any) -> bool:
        """Whether this is a list so long that the answer may have left out a part of it."""
        return self._at_most is not None and isinstance(shown, list) and len(shown) >= self._at_most

    def shown(self, values: Values, document: Any) -> list[tuple[str, Any]]:
        """(fact, what is shown of it)."""
        if self._each is None:
            return [(self._fact.text(values), self._at.find(document))]
        items = self._each.find(document)
        found: list[tuple[str, Any]] = []
        for item in items if isinstance(items, list) else () if items is MISSING else (items,):
            values["item"] = item
            found.append((self._fact.text(values), self._at.find(item)))
        values.pop("item", None)
        return found


class Making:
    """What an answered request has made true, compiled."""

    def __init__(self, write: Write) -> None:
        self._fact = Template(write.fact)
        self._last = write.last
        given = {"set": write.set, "add": write.add, "remove": write.remove}
        self._verb, form = next(each for each in given.items() if each[1] is not msgspec.UNSET)
        self._value = Document(form)

    def apply(self, facts: Facts, values: Values, document: Any) -> None:
        """The write has happened."""
        values["response"] = document
        fact, value = self._fact.text(values), self._value.fill(values)
        del values["response"]
        if self._verb == "set":
            facts.set(fact, value)
        elif self._verb == "add":
            facts.add(fact, value, self._last)
        else:
            facts.remove(fact, value)

    def doubt(self, facts: Facts, values: Values) -> None:
        """The write may have happened. What only its answer would have told was never known."""
        try:
            fact = self._fact.text(values)
            if self._verb == "set":
                facts.doubt(fact)
            elif self._verb == "remove":
                facts.doubt_member(fact, self._value.fill(values))
        except KeyError:
            return
