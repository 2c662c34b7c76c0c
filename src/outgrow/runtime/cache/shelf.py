"""What all processes share of the cache: entries, and what is known of their tags. In Redis or Valkey.

    e:KEY      an entry: with which versions of its tags it was read, at which position, and its value
    t:TAG      floor and version of a tag; gone when it is invalidated, and made anew, with a version that
               never was, by whoever needs it next. So one that Redis has thrown away costs entries, no more.
    doubt      tags that a transaction is about to change, while nobody knows whether it has: how many such
               transactions, and until when they may take
    floors     the positions of the newest invalidations; floors:old those of the time before
    state      a position before which nothing can be read any more that a later floor could miss (`base`),
               and up to where changes of rows have been told (`followed`)

What has to be one step is a script there (scripts.py).

Entries and tags live for a time, so Redis may throw them away when its memory is full (maxmemory-policy
volatile-*); the rest has no such time, and stays, and so does the tag that everything has.

    announce ─► tags gone, in doubt, all processes told ─► COMMIT ─► settle: floors raised, no doubt any more

Whoever can see a commit can find no entry that it made old, since that was gone before. What is lost on the
way leaves a doubt, which ends after ten seconds: whoever finds it then asks the primary how far it is, and
goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from binascii import unhexlify
from collections.abc import Awaitable, Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Protocol, TypeVar

import msgspec

from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.redis import Gone, Link, Pipe
from outgrow.runtime.cache.scripts import LOCK_MS, SCRIPTS
from outgrow.runtime.cache.tags import EVERYTHING

V = TypeVar("V")

Noted = tuple[int, Position]
"""A tag's version and floor."""

Learn = Callable[[str, Noted], None]
"""Is called in the place of the answer among what is told: what is learnt is no older than that."""


class Found(msgspec.Struct, array_like=True, gc=False):
    """An entry as it lies there. `expires` and `until` are times of time.time() (see memory.Entry)."""

    tags: list[tuple[str, int]]
    position: tuple[int, int]
    older: dict[int, tuple[int, int]]
    expires: float
    until: float
    packing: int
    value: bytes


class Heard(Protocol):
    """Who is told what happens there (shared.py)."""

    @property
    def grace_s(self) -> float:
        """So long after a new connection others may still have none; 0 while nothing is trusted anyway."""

    def gone(self, tags: Iterable[str]) -> None:
        """What was noted of them holds no longer."""

    def kept(self, key: str) -> None:
        """An entry that somebody waits for may be there."""

    def again(self, mine: Callable[[str], bool] | None = None) -> None:
        """The connection is a new one: what was told before it, of all tags or of these, nobody has heard."""

    def lost(self, mine: Callable[[str], bool] | None = None) -> None:
        """There is no connection: nothing is heard, of all tags or of these."""


class Shelf:
    """Calls raise Gone when the server does not answer in time, at once when it is known to be gone.

    `written` is a position beyond everything that can be seen on the primary now.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        application: str,
        *,
        heard: Heard,
        written: Callable[[], Awaitable[Position]],
    ) -> None:
        self._prefix = f"outgrow:{application}:cache:"
        self._channel = f"outgrow:{application}:cache"
        self._state, self._floors, self._old, self._doubt = (
            self._prefix + name for name in ("state", "floors", "floors:old", "doubt")
        )
        self._heard = heard
        self._written = written
        self._shas: dict[str, bytes] = {}
        self._link = Link(
            url, password, begin=self._begin, again=heard.again, pushed=self._pushed, lost=heard.lost
        )
        self.open, self.close = self._link.open, self._link.close
        self.everything: tuple[str, ...] = (EVERYTHING,)

    def every(self, key: str) -> tuple[str, ...]:
        """The tag that everything has, and so this key."""
        return self.everything

    @property
    def up(self) -> bool:
        """Whether it can be asked."""
        return self._link.up

    @property
    def trouble(self) -> str:
        """Why it cannot."""
        return self._link.trouble

    async def barrier(self) -> None:
        """When this returns, everything has been heard that was told before it was called."""
        await self._link.ask("PING")

    def entry(
        self, key: str, tags: Sequence[str], learn: Learn, then: Callable[[Found | None], V]
    ) -> asyncio.Future[V]:
        """What `then` makes of one of `entries`, in one exchange with its tags."""
        prefix = self._prefix

        def answered(answer: list[bytes | None]) -> V:
            for tag, kept in zip(tags, answer[1:], strict=True):
                if kept is not None:
                    learn(tag, _noted(kept))
            return then(None if answer[0] is None else _decode(answer[0]))

        return self._link.ask(
            "MGET", f"{prefix}e:{key}", *[f"{prefix}t:{tag}" for tag in tags], then=answered
        )

    async def entries(self, keys: Sequence[str], tags: Sequence[str], learn: Learn) -> list[Found | None]:
        """What lies there under these keys, and what is known of these tags, to be learnt at once."""
        learning = self.learn(tags, learn) if tags else None
        named = [f"{self._prefix}e:{key}" for key in keys]
        found: list[Found | None] = await self._link.ask("MGET", *named, then=_found) if named else []
        if learning is not None:
            await learning
        return found

    def learn(self, tags: Sequence[str], learn: Learn) -> asyncio.Future[Any]:
        """What is known of these tags."""
        named = [f"{self._prefix}t:{tag}" for tag in tags]
        return self._link.ask("MGET", *named, then=_learning(tags, learn))

    async def note(
        self, tags: Sequence[str], learn: Learn, *, lock: str = "", token: str = ""
    ) -> tuple[bool, Found | None]:
        """What is known of these tags, made anew where it is nothing. A tag in doubt is not learnt.

        Whether this token is the one that loads the key `lock` now, and what lies there: whoever was loading
        it may just have kept it.
        """
        while True:
            due: list[str] = []
            answer = await self._run(
                "note",
                [
                    self._state,
                    self._floors,
                    self._old,
                    self._doubt,
                    *[f"{self._prefix}{of}:{lock}" for of in "le"],
                ],
                tags,
                [token, *tags],
                then=_noting(tags, learn, due),
            )
            if answer is None:
                await self._run("begin", [self._state], (), [_pack(await self._written())])
            elif due:
                await self.settle(due, await self._written(), how="due")
            else:
                first, lying = answer
                return bool(first), None if lying is None else _decode(lying)

    def keep(
        self,
        key: str,
        found: Found | None,
        ttl_s: float,
        token: str = "",
        checked: Sequence[tuple[str, int]] | None = None,
    ) -> asyncio.Future[Any]:
        """Put it there, if nothing of what it was read with has changed since; end the lock of this token.

        `checked` are those of its tags that are here, by default all.
        """
        blob = b"" if found is None else _encode(found)
        tags = checked if checked is not None else () if found is None else found.tags
        return self._run(
            "keep",
            [f"{self._prefix}{kind}:{key}" for kind in "elw"],
            [tag for tag, _ in tags],
            [self._channel, token, blob, max(1, int(ttl_s * 1000)), key, *[version for _, version in tags]],
        )

    def wait_for(self, key: str) -> asyncio.Future[Any]:
        """Have it told when somebody else has loaded this key."""
        return self._link.ask("SET", f"{self._prefix}w:{key}", 1, "PX", LOCK_MS)

    async def announce(self, tags: Sequence[str]) -> Sequence[str]:
        """A transaction is about to change these. Returns those of which everybody has been told for certain.

        A server that is slow is told, and nobody waits until it has heard.
        """
        announced = self._run("announce", [self._doubt], tags, [self._channel, *tags], slowly=True)
        if not self.up:
            return ()
        try:
            await announced
        except Gone:
            return ()
        return tags

    async def tell(self, tags: Sequence[str], position: Position) -> Sequence[str]:
        """They have changed, unannounced. Returns those that could not be told."""
        try:
            await self.settle(tags, position, how="plain")
        except Gone:
            return tags
        return ()

    def settle(
        self, tags: Sequence[str], position: Position | None, *, how: str = "announced"
    ) -> asyncio.Future[Any]:
        """They have changed at this position, or have not (None).

        `how` is "announced", "plain" (nobody had announced it) or "due" (whoever did is gone).
        """
        keys = [self._state, self._floors, self._old, self._doubt]
        packed = "" if position is None else _pack(position)
        return self._run("settle", keys, tags, [self._channel, packed, how, *tags], slowly=True)

    async def followed(self) -> str:
        """What was noted last by `follow`; "" when this has begun anew since."""
        noted: bytes | None = await self._link.ask("HGET", self._state, "followed")
        return "" if noted is None else noted.decode()

    async def follow(self, place: str) -> None:
        """Everything that has changed up to this place has been told here."""
        await self._run("follow", [self._state], (), [place])

    def _run(
        self,
        script: str,
        keys: list[str],
        tags: Iterable[str],
        arguments: Sequence[Any],
        then: Callable[[Any], Any] | None = None,
        *,
        slowly: bool = False,
    ) -> asyncio.Future[Any]:
        keys += [f"{self._prefix}t:{tag}" for tag in tags]
        sha = self._shas.get(script, b"")
        return self._link.ask("EVALSHA", sha, len(keys), *keys, *arguments, then=then, slowly=slowly)

    async def _begin(self, pipe: Pipe) -> None:
        pipe.tell("SUBSCRIBE", self._channel)
        loaded = [pipe.ask("SCRIPT", "LOAD", text) for text in SCRIPTS.values()]
        self._shas = dict(zip(SCRIPTS, await asyncio.gather(*loaded), strict=True))

    def _pushed(self, message: list[Any]) -> None:
        if message[0] != b"message":
            return
        what, *names = msgspec.msgpack.decode(message[2], type=list[str])
        if what == "gone":
            self._heard.gone(names)
        else:
            self._heard.kept(names[0])


def _pack(position: Position) -> str:
    """As text that is in order."""
    return f"{position.timeline:08x}{position.offset:016x}"


def _noted(kept: bytes) -> Noted:
    return int(kept[24:]), Position._make(_position(unhexlify(kept[:24])))


def _learning(tags: Sequence[str], learn: Learn) -> Callable[[list[bytes | None]], None]:
    def then(answer: list[bytes | None]) -> None:
        for tag, kept in zip(tags, answer, strict=True):
            if kept is not None:
                learn(tag, _noted(kept))

    return then


def _noting(tags: Sequence[str], learn: Learn, due: list[str]) -> Callable[[list[Any] | None], Any]:
    def then(answer: list[Any] | None) -> tuple[int, bytes | None] | None:
        if answer is None:
            return None
        first, lying, noted = answer
        for tag, kept in zip(tags, noted, strict=True):
            if kept == b"due":
                due.append(tag)
            elif kept:
                learn(tag, _noted(kept))
        return first, lying

    return then


def _found(answer: list[bytes | None]) -> list[Found | None]:
    return [None if blob is None else _decode(blob) for blob in answer]


_position = Struct(">IQ").unpack
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Found)


def _decode(blob: bytes) -> Found | None:
    try:
        found = _decoder.decode(blob)
    except msgspec.DecodeError:
        return None  # of another version of Outgrow
    return found if found.until > time.time() else None
