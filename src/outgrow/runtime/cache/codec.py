"""Values as bytes, by their type: what one process keeps on the shelf another takes down as the same thing.

The type is what `get(..., type=...)` says, else what the load function is annotated to return. Nothing is
ever unpickled, and no class is looked up by a name that came from outside. A value of no known type stays in
its process.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from types import CodeType
from typing import Any, get_args, get_type_hints

import msgspec

COMPRESSED_FROM = 4096
"""Bytes. Below, a fraction of a millisecond of CPU would save less than a packet."""

PLAIN, ZLIB = 0, 1


class Codec:
    """Of one type. `id` is another one when the type has other fields: then entries are others, too."""

    __slots__ = ("decode", "encode", "id")

    def __init__(self, of: Any) -> None:
        described = repr(msgspec.inspect.type_info(of))
        self.id = blake2b(described.encode(), digest_size=6).hexdigest()
        self.encode: Callable[[Any], bytes] = bytes if of is bytes else msgspec.msgpack.Encoder().encode
        self.decode: Callable[[bytes], Any] = bytes if of is bytes else msgspec.msgpack.Decoder(of).decode


def codec_of(of: Any) -> Codec | None:
    """None for a type of which nobody knows how it is to be written down."""
    return _codec(of)


def codec_of_load(load: Callable[..., Any], of: Any = None, *, many: bool = False) -> Codec | None:
    """What `of` says, else the function's own annotation; with `many` it returns a mapping of such values."""
    if of is not None:
        return codec_of(of)
    code = getattr(load, "__code__", None)
    if code is None:
        return None
    if code not in _known:
        found = returned(load)
        if many:
            found = (get_args(found) or (None,))[-1]
        _known[code] = None if found is None else codec_of(found)
    return _known[code]


def returned(function: Callable[..., Any]) -> Any:
    """The type that it is annotated to return; None where that says nothing."""
    try:
        found = get_type_hints(function).get("return")
    except Exception:  # a name that is only there for the type checker
        return None
    return None if found is Any else found


def pack(value: bytes) -> tuple[int, bytes]:
    """How it is packed, and the packed."""
    if len(value) >= COMPRESSED_FROM:
        small = zlib.compress(value, 1)
        if len(small) < len(value) * 0.9:
            return ZLIB, small
    return PLAIN, value


def unpack(how: int, packed: bytes) -> bytes:
    """The reverse of `pack`."""
    return zlib.decompress(packed) if how == ZLIB else packed


_known: dict[CodeType, Codec | None] = {}


@cache
def _codec(of: Any) -> Codec | None:
    try:
        return Codec(of)
    except TypeError:
        return None
