"""The consistency token: what a session has written or seen, on every tier.

Known elsewhere as session token (Cosmos DB), bookmark (Neo4j, Cloudflare D1), TXID (LiteFS) or
ticket (FlightTracker, OSDI '20). The guarantees that it carries are those of Terry et al. 1994.

A token is base64url without padding of

    version  key id  issued (seconds)  writer  shards  { name  timeline  offset }
    1 byte   1 byte  varint            varint  varint    str   varint    varint
                                       forgotten  tags  { hash  position }  mac
                                       2 varints  varint  8 B    2 varints  16 B

signed with HMAC-SHA256 cut to 16 bytes. The oldest tags are forgotten when it would pass 512 bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

VERSION = 2
TOKEN_BYTES_MAX = 512
MAC_BYTES = 16
_FORM = re.compile(rf"[A-Za-z0-9_-]{{1,{2 * TOKEN_BYTES_MAX}}}")
TAG_LIFETIME_S = 60.0
"""How long a session keeps the tags that it wrote, one by one: as long as cached values mostly live. What it
forgets then it still holds against everything that is older (Bookmark.forgotten)."""

DECODED_MAX = 4096
"""Genuine tokens whose content is remembered, a kilobyte or two each: a session sends the same one until
it writes again."""


class Position(NamedTuple):
    """A point in one shard's history: (timeline, LSN) on PostgreSQL, (timeline, commit counter) on SQLite.

    Compared as a tuple, so a later timeline is later. SQLite starts at timeline 0, PostgreSQL at 1.
    """

    timeline: int
    offset: int

    def __str__(self) -> str:
        return f"{self.timeline}/{self.offset:X}"


ZERO = Position(0, 0)


class Writer:
    """Tells a running application, whose cache forgets what it writes, from others. `id` is never 0."""

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Be another: a process that was forked from this one must not be taken for it."""
        self.id = secrets.randbits(32) | 1


def tag_hash(tag: str) -> int:
    """The 64 bits by which a bookmark remembers a tag."""
    return int.from_bytes(hashlib.blake2b(tag.encode(), digest_size=8).digest(), "little")


class Bookmark:
    """Mutable while a request runs; merging takes the pointwise maximum.

    `tags` are what the session wrote lately, and `forgotten` is the newest position of what it wrote before
    and no longer knows by name. `writer` is who did all of it (Writer.id), or 0 when that is not known: what
    that one has cached is no older, since it forgot at once what was written. `changed` tells whether it
    holds anything that the caller's token did not.
    """

    __slots__ = ("changed", "forgotten", "positions", "tags", "writer")

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self.tags: dict[int, tuple[Position, float]] = {}
        self.forgotten = ZERO
        self.writer = 0
        self.changed = False

    def demands(self, writer: Writer) -> bool:
        """Whether the session has written anything that this one's cache may not know of."""
        return bool(self.tags or self.forgotten is not ZERO) and self.writer != writer.id

    def position(self, shard: str) -> Position | None:
        """What must at least be visible on this shard, or None when the session has no demand."""
        return self.positions.get(shard)

    def raise_to(self, shard: str, position: Position, tags: Iterable[str] = (), *, writer: int = 0) -> None:
        """Note that this session has written or seen `position`; `tags` are what it wrote, by `writer`."""
        if tags:
            self._written_by(writer)
        held = self.positions.get(shard)
        if held is None or held < position:
            self.positions[shard] = position
            self.changed = True
        deadline = 0.0
        for tag in tags:
            deadline = deadline or time.time() + TAG_LIFETIME_S
            self.tags[tag_hash(tag)] = (position, deadline)
            self.changed = True

    def _written_by(self, writer: int) -> None:
        first = not self.tags and self.forgotten is ZERO
        self.writer = writer if first or self.writer == writer else 0

    def tag_floor(self, tag: str) -> Position | None:
        """The position of this session's own latest write to `tag`, while it is fresh."""
        return self.floor((tag_hash(tag),)) if self.tags else None

    def floor(self, hashes: Collection[int]) -> Position | None:
        """The same for several tags, by their hashes: the latest of its writes to any of them."""
        if self.tags.keys().isdisjoint(hashes):
            return None
        return max(self.tags[tag][0] for tag in hashes if tag in self.tags)

    def merge(self, other: Bookmark) -> None:
        """Take over whatever the other knows better."""
        if other.tags or other.forgotten is not ZERO:
            self._written_by(other.writer)
        if other.forgotten > self.forgotten:
            self.forgotten = other.forgotten
            self.changed = True
        for shard, position in other.positions.items():
            held = self.positions.get(shard)
            if held is None or held < position:
                self.positions[shard] = position
                self.changed = True
        for tag, (position, deadline) in other.tags.items():
            mine = self.tags.get(tag)
            if mine is None or mine[0] < position:
                self.tags[tag] = (position, deadline)
                self.changed = True


class Content(NamedTuple):
    """What a genuine token says, whenever it is asked. Shared by all who send it: not to be changed."""

    issued: int
    writer: int
    positions: dict[str, Position]
    forgotten: Position
    tags: dict[int, tuple[Position, float]]


class Signer:
    """Makes tokens and reads them back. Several keys are accepted, the newest one signs.

    `keys` maps a key id (0 to 255) to at least 16 bytes. A token that is malformed, forged, signed
    by an unknown key or older than `lifetime_s` is no token: `decode` returns None and the session
    starts without demands, which is safe for it and useless to a forger.
    """

    def __init__(self, keys: Mapping[int, bytes], *, lifetime_s: float = 3600.0) -> None:
        self._keys = dict(keys)
        self._newest = max(keys)
        self._lifetime_s = lifetime_s
        # What is genuine stays genuine; whether it is too old is asked each time. A forged one raises,
        # and is not remembered.
        self._content = lru_cache(DECODED_MAX)(self._read)

    def encode(self, bookmark: Bookmark, *, now: float | None = None) -> str:
        """The token: at most 512 bytes; the oldest tags, then nothing else, are forgotten to fit."""
        moment = time.time() if now is None else now
        tags = sorted(bookmark.tags.items(), key=lambda entry: -entry[1][1])
        kept = [entry for entry in tags if entry[1][1] > moment]
        while True:
            left_out = tags[len(kept) :]
            forgotten = max((position for _, (position, _) in left_out), default=ZERO)
            body = self._pack(bookmark, max(forgotten, bookmark.forgotten), kept, int(moment))
            token = urlsafe_b64encode(body + self._mac(self._newest, body)).rstrip(b"=")
            if len(token) <= TOKEN_BYTES_MAX or not kept:
                return token.decode()
            kept = kept[: len(kept) * 3 // 4]

    def decode(self, token: str, *, now: float | None = None) -> Bookmark | None:
        """The bookmark inside a token, or None when the token proves nothing."""
        try:
            content = self._content(token)
        except (ValueError, IndexError, binascii.Error):
            return None
        moment = time.time() if now is None else now
        if moment - content.issued > self._lifetime_s:
            return None
        bookmark = Bookmark()
        bookmark.positions = content.positions.copy()
        bookmark.writer = content.writer
        bookmark.forgotten = content.forgotten
        if content.issued + TAG_LIFETIME_S > moment:
            bookmark.tags = content.tags.copy()
        elif content.tags:
            newest = max(position for position, _ in content.tags.values())
            bookmark.forgotten = max(content.forgotten, newest)
        return bookmark

    def _read(self, token: str) -> Content:
        """Raises ValueError or IndexError for a token that is malformed or forged."""
        if not _FORM.fullmatch(token):  # the decoder would pass over what does not belong there
            raise ValueError("no base64url, or too long")
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        if body[0] != VERSION or body[1] not in self._keys:
            raise ValueError("of another version, or signed with an unknown key")
        if not hmac.compare_digest(mac, self._mac(body[1], body)):
            raise ValueError("not signed with our key")
        return _unpack(body)

    def _mac(self, key: int, body: bytes) -> bytes:
        return hmac.digest(self._keys[key], body, "sha256")[:MAC_BYTES]

    def _pack(
        self,
        bookmark: Bookmark,
        forgotten: Position,
        tags: list[tuple[int, tuple[Position, float]]],
        issued: int,
    ) -> bytes:
        out = bytearray((VERSION, self._newest))
        _put(out, issued)
        _put(out, bookmark.writer)
        _put(out, len(bookmark.positions))
        for shard, position in bookmark.positions.items():
            name = shard.encode()
            _put(out, len(name))
            out += name
            _put(out, position.timeline)
            _put(out, position.offset)
        _put(out, forgotten.timeline)
        _put(out, forgotten.offset)
        _put(out, len(tags))
        for tag, (position, _) in tags:
            out += tag.to_bytes(8, "little")
            _put(out, position.timeline)
            _put(out, position.offset)
        return bytes(out)


def _unpack(body: bytes) -> Content:
    issued, at = _take(body, 2)
    writer, at = _take(body, at)
    positions: dict[str, Position] = {}
    count, at = _take(body, at)
    for _ in range(count):
        length, at = _take(body, at)
        shard, at = body[at : at + length].decode(), at + length
        timeline, at = _take(body, at)
        offset, at = _take(body, at)
        positions[shard] = Position(timeline, offset)
    timeline, at = _take(body, at)
    offset, at = _take(body, at)
    forgotten = Position(timeline, offset) if timeline or offset else ZERO
    tags: dict[int, tuple[Position, float]] = {}
    count, at = _take(body, at)
    for _ in range(count):
        tag, at = int.from_bytes(body[at : at + 8], "little"), at + 8
        timeline, at = _take(body, at)
        offset, at = _take(body, at)
        tags[tag] = (Position(timeline, offset), issued + TAG_LIFETIME_S)
    return Content(issued, writer, positions, forgotten, tags)


def _put(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _take(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
