"""Write-behind: what is put is durable when `put` returns, and stored a moment later, many at once.

    put ─► group: one transaction for all who put meanwhile ─► buffer ─► acknowledged
                                                                 │ flusher.py: one process, in batches
    get ─► cache ─ no ─► buffer, newest first ─ no ─► load       └─► store(tx, newest of each key)

The buffer is a table of the application's database: what that survives, it survives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

import msgspec

from outgrow.errors import BufferFull, Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache.codec import codec_of
from outgrow.runtime.cache.flusher import Buffer, Flusher, Pace
from outgrow.runtime.cache.loads import retrieve
from outgrow.runtime.cache.strategies import Load, Store, Strategy, Tiers
from outgrow.runtime.cache.wanted import names, seconds
from outgrow.runtime.events import Events

K = TypeVar("K")
V = TypeVar("V")


class Flushers:
    """The flushers of this process, which begin and end with it."""

    def __init__(self) -> None:
        self._all: dict[str, Flusher] = {}
        self._started = False

    def add(self, flusher: Flusher) -> None:
        """One more. Raises Misuse for a name that another one has."""
        if flusher.name in self._all:
            raise Misuse(
                f"there are two WriteBehind named {flusher.name!r}", hint="give each a prefix of its own"
            )
        self._all[flusher.name] = flusher
        if self._started:
            flusher.start()

    def start(self) -> None:
        """Begin to store what is put, by whatever process."""
        self._started = True
        for flusher in self._all.values():
            flusher.start()

    async def close(self) -> None:
        """Store what there is, within a few seconds. What is left stays in the buffer, for others."""
        self._started = False
        await asyncio.gather(*(flusher.close() for flusher in self._all.values()))

    def __iter__(self) -> Iterator[Flusher]:
        return iter(self._all.values())


class Places(Tiers, Protocol):
    """What write-behind needs of the Outgrow object besides."""

    @property
    def buffer(self) -> Any: ...
    @property
    def flushers(self) -> Flushers: ...
    @property
    def events(self) -> Events: ...


class Group:
    """Puts that are committed together: of each key the last one counts."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.tags: set[str] = set()
        self.written: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.written.add_done_callback(retrieve)


class WriteBehind(Strategy[K, V]):
    """`put` keeps the value in a durable buffer; it is stored within about `every`, at most `batch` at once.

    `store` gets the newest value of each key, in a write block that also takes them out of the buffer: each
    is stored once, and never after one that was put later. It is called again for values whose transaction
    was rolled back. What it fails to store is tried again, in the end alone, and then set aside: `aside`
    shows it, `try_again` has it stored once more.

    `keys` makes a key of its `str` again (`keys=int`). At most `entries_max` puts and `bytes_max` bytes wait;
    beyond that `put` waits up to `wait`, then raises BufferFull. The limits are looked after about once a
    second, so processes together may exceed them by what they put meanwhile.

    `get` shows what was put as soon as og.cache shows any change. A query of your own does not, before it is
    stored.
    """

    def __init__(
        self,
        og: Places,
        prefix: str,
        load: Load[K, V],
        *,
        store: Store[K, V],
        keys: Callable[[str], K] | None = None,
        every: str | float = 0.5,
        batch: int = 500,
        entries_max: int = 10_000,
        bytes_max: int = 64 << 20,
        wait: str | float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(og, prefix, load, store=store, **options)
        codec = codec_of(self._type) if self._type is not None else None
        if codec is None:
            raise Misuse(
                f"WriteBehind {prefix!r}: nobody knows what its values look like as bytes",
                hint="annotate what load returns, or give type=...",
            )
        self._codec, self._keys = codec, keys or cast("Callable[[str], K]", str)
        self._buffer: Buffer = og.buffer
        self._events, self._wait_s = og.events, seconds(wait)
        self._gathering: Group | None = None
        self._writing: asyncio.Task[None] | None = None
        pace = Pace(seconds(every), batch, entries_max, bytes_max)
        self.flusher = Flusher(prefix, og.buffer, self._store_rows, og.events, pace)
        og.flushers.add(self.flusher)

    async def put(self, key: K, value: V) -> None:
        """Durable when this returns, and shown by `get`; stored soon.

        Inside a write block it is, and counts, if that commits; it does not wait for room there.
        Raises BufferFull (503 if nobody handles it), Misuse for what could not be stored as what it is, and
        what a write block raises; after OutcomeUnknown, or when it was cancelled, it may have been kept.
        """
        name, packed = str(key), self._packed(key, value)
        unit: Any = request.unit_of_work.get()
        tags = names(self.name(key), self._tags(key))
        if unit is not None:
            await self._room(len(packed), 0.0)
            await self._append(unit, {name: packed}, tags)
            return
        await self._room(len(packed), self._wait_s)
        group = self._gathering
        if group is None:
            group = self._gathering = Group()
        group.values[name] = packed
        group.tags.update(tags)
        if self._writing is None or self._writing.done():
            # In a context of its own: it is nobody's request, and nobody's trace.
            self._writing = asyncio.get_running_loop().create_task(self._write_groups(), context=Context())
        position = await asyncio.shield(group.written)
        self._buffer.wrote(position, tags)

    async def aside(self) -> Sequence[tuple[str, str]]:
        """What could not be stored, oldest first: key and reason. `get` shows it. Raises DatabaseError."""
        return await self._buffer.aside(self.prefix)

    async def try_again(self) -> int:
        """Have what was set aside stored once more; returns how many puts that is. Raises DatabaseError."""
        return await self._buffer.try_again(self.prefix)

    async def flush(self) -> None:
        """Store everything that is in the buffer: for tests and scripts. Raises what `store` raises."""
        await self.flusher.flush()

    async def _load(self, key: K) -> V:
        unit = request.unit_of_work.get()
        if unit is not None:
            return await self._newest(unit, key)
        async with self._db.read() as tx:
            return await self._newest(tx, key)

    async def _newest(self, tx: Any, key: K) -> V:
        """Of one node, and the buffer first: what is stored meanwhile was taken out of it in that moment."""
        found = await self._buffer.newest(tx, self.prefix, str(key))
        if found is None:
            return await self._of(tx, key)
        value: V = self._codec.decode(found)
        return value

    async def _write_groups(self) -> None:
        """While one transaction commits, the next group gathers."""
        while self._gathering is not None:
            group, self._gathering = self._gathering, None
            try:
                group.written.set_result(await self._write(group))
            except asyncio.CancelledError:
                group.written.cancel()
                raise
            except Exception as error:
                group.written.set_exception(error)

    async def _write(self, group: Group) -> Position:
        at: list[Position] = []
        async with self._buffer.write() as tx:
            await self._append(tx, group.values, group.tags)
            tx.after_commit(at.append, certain=True)
        return at[0]

    async def _append(self, tx: Any, values: Mapping[str, bytes], tags: Iterable[str]) -> None:
        await self._buffer.append(tx, self.prefix, values)
        # Not put into the cache: another process may put the same key now, and of both the database knows
        # which is the later one.
        self._cache.invalidate(*tags)
        size = sum(map(len, values.values()))
        tx.after_commit(lambda position: self.flusher.appended(len(values), size))

    async def _room(self, size: int, wait_s: float) -> None:
        if not self.flusher.full(size):
            return
        if not self.flusher.running:
            await self.flusher.look()
        deadline = monotonic() + wait_s
        while self.flusher.full(size):
            if not await self.flusher.freed(deadline - monotonic()):
                self._events.buffer_refused(self.prefix)
                raise BufferFull(self.prefix, self.flusher.waiting, wait_s)

    def _packed(self, key: K, value: V) -> bytes:
        """What comes back is what was put: nobody could be told later."""
        if self._keys(str(key)) != key:
            raise Misuse(
                f"{self.prefix!r}: the key {key!r} would come back as {self._keys(str(key))!r}",
                hint="give keys=..., which makes a key of its text: keys=int",
            )
        try:
            packed = self._codec.encode(value)
            self._codec.decode(packed)
        except (msgspec.MsgspecError, TypeError) as error:
            raise Misuse(f"{self.name(key)}: {value!r} is no {self._type}: {error}") from None
        return packed

    async def _store_rows(self, tx: Any, rows: Mapping[str, bytes]) -> None:
        values = {}
        for name, packed in rows.items():
            try:
                values[self._keys(name)] = self._codec.decode(packed)
            except (msgspec.MsgspecError, ValueError) as error:
                raise Misuse(
                    f"what the buffer has of {self.prefix}:{name} is no {self._type}: {error}",
                    hint="it was put by another version of the application: keep its type readable",
                ) from error
        await self._store(tx, cast("Mapping[K, V]", values))
        # Whoever has read the table meanwhile has the value before this one. The strategy's own entries hold.
        tags = [tag for key in values for tag in self._tags(key)]
        if tags:
            self._cache.invalidate(*tags)
