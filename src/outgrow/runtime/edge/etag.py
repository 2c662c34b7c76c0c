"""Entity tags: whether a caller already holds what it asks for. RFC 9110, sections 8.8.3 and 13.1.2.

    tag = ETag.of(body)                 # or of what the answer is made from: ETag.of(article.id, version)
    if tag.held(headers.get("if-none-match")):
        return 304 and no body

A tag is of what an answer says, not of when it was made: it is the same in every process, before and after a
restart. The versions of cache tags are not, so they make no entity tag.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import MutableMapping
from hashlib import blake2b
from typing import Any

import msgspec

from outgrow.errors import Misuse

Message = MutableMapping[str, Any]

DIGEST_BYTES = 15
"""20 letters: two answers of one address that are taken for each other are not to be expected."""

_TAGS = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_OPAQUE = re.compile(r"[\x21\x23-\x7e\x80-\xff]*")

STAYS = (
    b"cache-control",
    b"content-location",
    b"date",
    b"expires",
    b"vary",
    b"set-cookie",
    b"outgrow-bookmark",
)
"""What a 304 says as its 200 would (RFC 9110, 15.4.5), beside the tag; and what concerns the session."""


class ETag:
    """One entity tag. A `weak` one is of answers that mean the same, though not byte by byte: where something
    between here and the caller compresses them, say."""

    __slots__ = ("opaque", "weak")

    def __init__(self, opaque: str, *, weak: bool = False) -> None:
        """Raises Misuse for what cannot stand between its quotes."""
        if not _OPAQUE.fullmatch(opaque):
            raise Misuse(f"{opaque!r} cannot be an entity tag", hint="ETag.of(...) makes one of anything")
        self.opaque, self.weak = opaque, weak

    @classmethod
    def of(cls, *parts: Any, weak: bool = False) -> ETag:
        """Of a body, or of values that decide what it is (msgspec says which there may be). Raises Misuse."""
        try:
            said = parts[0] if len(parts) == 1 and isinstance(parts[0], bytes) else _encode(parts)
        except TypeError as error:
            raise Misuse(f"ETag.of: {error}", hint="give it bytes, texts, numbers, structs") from None
        digest = blake2b(said, digest_size=DIGEST_BYTES).digest()
        return cls(urlsafe_b64encode(digest).decode(), weak=weak)

    def held(self, if_none_match: str | bytes | None) -> bool:
        """Whether this header names it, so that the caller needs no body. Compared weakly, as for GET."""
        if not if_none_match:
            return False
        said = if_none_match.decode("latin-1") if isinstance(if_none_match, bytes) else if_none_match
        return said.strip() == "*" or self.opaque in _TAGS.findall(said)

    def not_modified(self, start: Message) -> Message:
        """What begins the 304 in the place of this ASGI message of the 200. An empty body follows."""
        headers = [(name, value) for name, value in start["headers"] if _stays(name.lower())]
        return {**start, "status": 304, "headers": [*headers, (b"etag", str(self).encode("latin-1"))]}

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'

    def __repr__(self) -> str:
        return f"ETag({self.opaque!r}, weak={self.weak})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ETag) and (self.opaque, self.weak) == (other.opaque, other.weak)

    def __hash__(self) -> int:
        return hash((self.opaque, self.weak))


def _stays(name: bytes) -> bool:
    return name in STAYS or name.startswith(b"access-control-")


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
