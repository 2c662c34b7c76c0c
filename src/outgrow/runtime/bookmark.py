"""The consistency token: what a session has written or seen, on every tier.

Known elsewhere as session token (Cosmos DB), bookmark (Neo4j, Cloudflare D1), TXID (LiteFS) or
ticket (FlightTracker, OSDI '20). The guarantees that it carries are those of Terry et al. 1994.

A token is base64url without padding of

    version  key id  issued (seconds)  writer  session  wrote at (1/100 s)
    1 byte   1 byte  varint            varint  varint   varint
                     shards  { name  timeline  offset  seen }  forgotten  tags  { hash  position }  mac
                     varint    str   varint    varint  varint  2 varints  varint  8 B    2 varints  16 B

signed with HMAC-SHA256 cut to 16 bytes. A shard that comes again is what is held of an earlier timeline. The
oldest tags are forgotten when it would pass 512 bytes.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import math
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

VERSION = 3
TOKEN_BYTES_MAX = 512
MAC_BYTES = 16
_FORM = re.compile(rf"[A-Za-z0-9_-]{{1,{2 * TOKEN_BYTES_MAX}}}")
TAG_LIFETIME_S = 60.0
"""How long a session keeps the tags that it wrote, one by one: as long as cached values mostly live. What it
forgets then it still holds against everything that is older (Bookmark.forgotten)."""

DECODED_MAX = 1024
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
SEVERAL = 1
"""In the place of a run (Bookmark.seen): more than one, or one that nobody can name. No run has this id."""


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

    `seen` names for a shard the run of a node whose data the session has read since, without a position for
    it: the same run shows nothing older later on, and another node has to prove that it is as far. `session`
    tells sessions apart and is 0 until a token is made; `wrote_at` is the time of its last write. `read_at`
    is when its last read of such a run has ended (time.monotonic()), as far as this process knows.

    `earlier` is what merging has found of other timelines than that of `positions`: timeline -> offset, run.
    Where a failover has lost writes, the later position does not include the earlier one, so both are kept
    until somebody who knows the timelines has looked (`proven`).
    """

    __slots__ = (
        *("changed", "earlier", "forgotten", "positions", "read_at", "seen", "session", "tags"),
        *("writer", "wrote_at"),
    )

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self.seen: dict[str, int] = {}
        self.earlier: dict[str, dict[int, tuple[int, int]]] = {}
        self.session = 0
        self.read_at = math.inf
        self.wrote_at = 0.0
        self.tags: dict[int, tuple[Position, float]] = {}
        self.forgotten = ZERO
        self.writer = 0
        self.changed = False

    def begin_session(self) -> None:
        """From now on whoever sends it back is one session, unless it is one already."""
        self.session = self.session or secrets.randbits(32) | 1

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

    def wrote(self, shard: str, position: Position, tags: Iterable[str], writer: int) -> None:
        """Note a commit of this session. What it had read before is no newer."""
        self.raise_to(shard, position, tags, writer=writer)
        self.seen.pop(shard, None)
        self.wrote_at = time.time()

    def saw(self, shard: str, run: int) -> None:
        """Note that this session reads what this run of a node shows, whatever point that is.

        What it had seen before must have been proven to be no newer.
        """
        self.read_at = math.inf
        if self.seen.get(shard) != run:
            self.seen[shard] = run
            self.changed = True

    def still_sees(self, shard: str, run: int) -> None:
        """A read that began with `saw` has ended: another one may have named another run meanwhile."""
        self.read_at = time.monotonic()
        if self.seen.get(shard) != run:
            self.saw(shard, SEVERAL)

    def covers(self, shard: str, position: Position) -> None:
        """Note that everything this session has seen of the shard is no newer than `position`."""
        self.raise_to(shard, position)
        if self.seen.pop(shard, 0):
            self.changed = True

    def restart(self, shard: str, position: Position) -> None:
        """Demand no more than `position`, whatever was demanded: what lay beyond it is lost."""
        self.positions[shard] = position
        self.seen.pop(shard, None)
        self.earlier.pop(shard, None)
        self.changed = True

    def proven(self, shard: str, position: Position, run: int) -> None:
        """Nothing of `earlier` is lost: all of it is what `position` and this run of a node include."""
        del self.earlier[shard]
        self.raise_to(shard, position)
        if run:
            self.saw(shard, run)
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
        for shard in other.positions.keys() | other.seen.keys():
            self._join(shard, other.positions.get(shard), other.seen.get(shard, 0))
        for shard, demands in other.earlier.items():
            for timeline, (offset, run) in demands.items():
                self._join(shard, Position(timeline, offset), run)
        self.session = self.session or other.session
        self.wrote_at = max(self.wrote_at, other.wrote_at)
        for tag, (position, deadline) in other.tags.items():
            mine = self.tags.get(tag)
            if mine is None or mine[0] < position:
                self.tags[tag] = (position, deadline)
                self.changed = True

    def _join(self, shard: str, position: Position | None, run: int) -> None:
        held = self.positions.get(shard)
        if position is None or held is None or position.timeline == held.timeline:
            if position is not None and (held is None or held < position):
                self.positions[shard] = position
                self.changed = True
            if run:
                self.saw(shard, one_run(self.seen.get(shard, 0), run))
            return
        if held < position:
            self.positions[shard], position = position, held
            mine = self.seen.pop(shard, 0)
            if run:
                self.seen[shard] = run
            run = mine
        demands = self.earlier.setdefault(shard, {})
        offset, before = demands.get(position.timeline, (0, 0))
        demands[position.timeline] = max(offset, position.offset), one_run(before, run)
        self.changed = True


def one_run(one: int, other: int) -> int:
    """The run of both, 0 being none; SEVERAL where they differ."""
    return one or other if one == other or not one or not other else SEVERAL


class Content(NamedTuple):
    """What a genuine token says, whenever it is asked. Shared by all who send it: not to be changed."""

    issued: int
    writer: int
    session: int
    wrote_at: float
    positions: dict[str, Position]
    seen: dict[str, int]
    earlier: dict[str, dict[int, tuple[int, int]]]
    forgotten: Position
    tags: dict[int, tuple[Position, float]]

    def bookmark(self, moment: float) -> Bookmark:
        """A bookmark that says this. Most hold a position and tags, and nothing of the rest."""
        issued, writer, session, wrote_at, positions, seen, earlier, forgotten, tags = self
        bookmark = Bookmark()
        bookmark.writer = writer
        bookmark.session = session
        bookmark.wrote_at = wrote_at
        bookmark.forgotten = forgotten
        bookmark.positions = positions.copy()
        if seen:
            bookmark.seen = seen.copy()
        if earlier:
            bookmark.earlier = {shard: demands.copy() for shard, demands in earlier.items()}
        if not tags:
            return bookmark
        if issued + TAG_LIFETIME_S > moment:
            bookmark.tags = tags.copy()
        else:
            bookmark.forgotten = max(forgotten, *[position for position, _ in tags.values()])
        return bookmark


class Signer:
    """Makes tokens and reads them back. Several keys are accepted, the newest one signs.

    `keys` maps a key id (0 to 255) to at least 16 bytes. A token that is malformed, forged, signed
    by an unknown key or older than `lifetime_s` is no token: `decode` returns None and the session
    starts without demands, which is safe for it and useless to a forger.
    """

    def __init__(self, keys: Mapping[int, bytes], *, lifetime_s: float = 3600.0) -> None:
        # Begun once: to find the hash and to take the key in costs more than to sign a token.
        self._begun = {number: hmac.new(key, digestmod="sha256") for number, key in keys.items()}
        self._newest = max(keys)
        self._lifetime_s = lifetime_s
        # What is genuine stays genuine; whether it is too old is asked each time. A forged one raises,
        # and is not remembered.
        self._content = lru_cache(DECODED_MAX)(self._read)

    def encode(self, bookmark: Bookmark, *, now: float | None = None) -> str:
        """The token: at most 512 bytes; the oldest tags, then nothing else, are forgotten to fit."""
        moment = time.time() if now is None else now
        bookmark.begin_session()
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
        return content.bookmark(moment) if moment - content.issued <= self._lifetime_s else None

    def _read(self, token: str) -> Content:
        """Raises ValueError or IndexError for a token that is malformed or forged."""
        if not _FORM.fullmatch(token):  # the decoder would pass over what does not belong there
            raise ValueError("no base64url, or too long")
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        if body[0] != VERSION or body[1] not in self._begun:
            raise ValueError("of another version, or signed with an unknown key")
        if not hmac.compare_digest(mac, self._mac(body[1], body)):
            raise ValueError("not signed with our key")
        return _unpack(body)

    def _mac(self, key: int, body: bytes) -> bytes:
        mac = self._begun[key].copy()
        mac.update(body)
        return mac.digest()[:MAC_BYTES]

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
        _put(out, bookmark.session)
        _put(out, math.ceil(bookmark.wrote_at * 100))
        shards = bookmark.positions.keys() | bookmark.seen.keys()
        demands = [(each, bookmark.positions.get(each, ZERO), bookmark.seen.get(each, 0)) for each in shards]
        for shard, earlier in bookmark.earlier.items():
            demands += [(shard, Position(each, offset), run) for each, (offset, run) in earlier.items()]
        _put(out, len(demands))
        for shard, position, run in demands:
            name = shard.encode()
            _put(out, len(name))
            out += name
            _put(out, position.timeline)
            _put(out, position.offset)
            _put(out, run)
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
    session, at = _take(body, at)
    wrote_at, at = _take(body, at)
    positions: dict[str, Position] = {}
    seen: dict[str, int] = {}
    earlier: dict[str, dict[int, tuple[int, int]]] = {}
    count, at = _take(body, at)
    for _ in range(count):
        length, at = _take(body, at)
        shard, at = body[at : at + length].decode(), at + length
        timeline, at = _take(body, at)
        offset, at = _take(body, at)
        run, at = _take(body, at)
        if shard in positions:
            earlier.setdefault(shard, {})[timeline] = offset, run
            continue
        if timeline or offset or not run:
            positions[shard] = Position(timeline, offset)
        if run:
            seen[shard] = run
    timeline, at = _take(body, at)
    offset, at = _take(body, at)
    forgotten = Position(timeline, offset) if timeline or offset else ZERO
    tags: dict[int, tuple[Position, float]] = {}
    written = (ZERO, issued + TAG_LIFETIME_S)
    count, at = _take(body, at)
    for _ in range(count):
        tag, at = int.from_bytes(body[at : at + 8], "little"), at + 8
        timeline, at = _take(body, at)
        offset, at = _take(body, at)
        if written[0] != (timeline, offset):  # else by the same commit: one object will do
            written = (Position(timeline, offset), written[1])
        tags[tag] = written
    return Content(issued, writer, session, wrote_at / 100, positions, seen, earlier, forgotten, tags)


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
