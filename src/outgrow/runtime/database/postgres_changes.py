"""Reads on, transaction by transaction, what has been committed: a slot of PostgreSQL's logical replication.

    connect ─► the slot, made if it is not there ─► START_REPLICATION ─► messages ... ─► confirm(end)

The server keeps its log from what was confirmed last, so whoever comes next goes on from there; it gives a
slot to one reader at a time. asyncpg connects and proves who it is; it does not speak replication, so what it
has connected is taken over here. Source: PostgreSQL's manual, "Streaming Replication Protocol".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from struct import Struct
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from outgrow.errors import Unavailable
from outgrow.runtime.bookmark import Position
from outgrow.runtime.database.pgoutput import EPOCH_S, Decoder, Message, name_of
from outgrow.runtime.database.postgres_connection import lsn
from outgrow.runtime.database.postgres_errors import CONNECTION_LOST

PUBLICATION = "outgrow_changes"
"""What is published: made with the migrations (postgres_publication.py)."""

CONNECT_WITHIN_S = 3.0
CREATE_WITHIN_S = 60.0
"""A new slot begins when all transactions have ended that are under way."""

TELL_S = 1.0
"""How often the server hears how far this is, and is asked whether it is there."""

SILENCE_S = 10.0
"""A server of which nothing is heard for so long is gone."""

BUFFER = 1 << 16
AT_ONCE = 100
"""Messages, before others may go on."""

# Such a connection takes no parameters; the names are ours.
_PUBLISHED = "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = '{}'"
_SLOT = "SELECT wal_status, confirmed_flush_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = '{}'"
_LEFT = """
SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1 AND NOT active AND pg_catalog.pg_is_in_recovery()
"""
_TAKEN = ("55006", "42710")
"""Somebody else reads, or has just made it."""

_HEADER = Struct("!cI")
_DATA = Struct("!qqq")
_ALIVE = Struct("!qqB")
_STATUS = Struct("!cIcqqqqB")


class SlotBusy(Exception):
    """Another process reads."""


class Alive(NamedTuple):
    """Nothing follows that was written before this LSN."""

    end: int


class Begun(NamedTuple):
    """Where a reader begins, in the history of the server with this number, and what is published."""

    system: str
    position: Position
    tables: frozenset[str]


class Changes:
    """One connection to the primary. Raises Unavailable whenever that is lost.

    `url` names a role that may read the log; `base` is added to the server's timeline; of which tables rows
    are `wanted` see Decoder.
    """

    def __init__(
        self, url: str, password: str | None, slot: str, *, base: int, wanted: Callable[[str], bool]
    ) -> None:
        self._url, self._password, self._slot, self._base = url, password, slot, base
        self._decoder = Decoder(wanted)
        self._raw: Any = None
        self._transport: Any = None
        self._reader = asyncio.StreamReader(limit=BUFFER)
        self._telling: asyncio.Task[None] | None = None
        self._confirmed = 0
        self._asked = False
        self.skips = False
        """Whether the rows of this transaction are left out from here on."""

    async def open(self) -> Begun:
        """Begin where the last reader has ended, or here and now. Raises SlotBusy."""
        try:
            async with asyncio.timeout(CREATE_WITHIN_S):
                await self._connect()
                return await self._begin()
        except (asyncpg.PostgresError, *CONNECTION_LOST, TimeoutError, ValueError) as error:
            raise Unavailable(f"changes cannot be read: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Hang up: another may read."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._raw is not None:
            self._raw.terminate()

    def confirm(self, end: int) -> None:
        """What was written before this LSN is done, and need not be told again."""
        self._confirmed = max(self._confirmed, end)
        if self._asked:  # a server that is being stopped waits for it
            self._asked = False
            self._tell()

    async def messages(self) -> AsyncIterator[Message | Alive]:
        """What comes, for as long as it does."""
        count = 0
        while True:
            data = await self._copied()
            if data[:1] == b"k":
                end, _, asked = _ALIVE.unpack_from(data, 1)
                if asked:
                    self._tell()
                    self._asked = True
                yield Alive(end)
                continue
            told = data[1 + _DATA.size :]
            message = None if self.skips and told[:1] in b"IUD" else self._decoder.decode(told)
            if message is not None:
                yield message
            count += 1
            if count % AT_ONCE == 0:  # what has come already is read without waiting
                await asyncio.sleep(0)

    async def _connect(self) -> None:
        self._raw = await asyncpg.connect(
            self._url,
            password=self._password,
            timeout=CONNECT_WITHIN_S,
            server_settings={
                "application_name": "outgrow changes",
                "replication": "database",
                "wal_sender_timeout": "30s",
            },
        )
        self._transport = self._raw._transport  # noqa: SLF001 - it has no public name, and no other owner now
        protocol = asyncio.StreamReaderProtocol(self._reader)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)

    async def _begin(self) -> Begun:
        system, timeline, *_ = (await self._query("IDENTIFY_SYSTEM"))[0]
        find = _SLOT.format(self._slot)
        found = await self._query(find)
        if found and found[0][0] == "lost":  # nobody has read for so long that the log is gone
            await self._query(f'DROP_REPLICATION_SLOT "{self._slot}"')
            found = []
        if not found:
            await self._query(
                f"CREATE_REPLICATION_SLOT \"{self._slot}\" LOGICAL pgoutput (SNAPSHOT 'nothing')"
            )
            found = await self._query(find)
        self._confirmed = lsn(found[0][1])
        published = await self._query(_PUBLISHED.format(PUBLICATION))
        await self._query(
            f'START_REPLICATION SLOT "{self._slot}" LOGICAL 0/0 '
            f"(proto_version '1', publication_names '{PUBLICATION}', messages 'true')"
        )
        self._telling = asyncio.get_running_loop().create_task(self._keep_telling())
        position = Position(self._base + int(timeline), self._confirmed)
        return Begun(system, position, frozenset(name_of(*row) for row in published))

    async def _query(self, text: str) -> list[list[str]]:
        """Rows as text, "" where there is nothing. Ends where the answer does, or replication begins."""
        self._send(b"Q", text.encode() + b"\0")
        rows: list[list[str]] = []
        error = None
        while True:
            kind, data = await self._message()
            if kind == b"D":
                rows.append(_fields(data))
            elif kind == b"E":
                told = [part.decode(errors="replace") for part in data.split(b"\0")]
                error = {part[:1]: part[1:] for part in told}
            elif kind in b"ZW":
                break
        if error is not None and error.get("C") in _TAKEN:
            raise SlotBusy
        if error is not None:
            raise ValueError(error.get("M", "the server refuses"))
        return rows

    async def _copied(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE_S):
                while True:
                    kind, data = await self._message()
                    if kind == b"d":
                        return data
                    if kind in b"Ec":
                        raise ConnectionResetError(data.replace(b"\0", b" ").decode(errors="replace"))
        except EOFError as error:
            raise Unavailable("changes cannot be read: the server has hung up") from error
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"changes cannot be read: {error or type(error).__name__}") from error

    async def _message(self) -> tuple[bytes, bytes]:
        kind, size = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
        return kind, await self._reader.readexactly(size - 4)

    def _send(self, kind: bytes, data: bytes) -> None:
        self._transport.write(_HEADER.pack(kind, len(data) + 4) + data)

    async def _keep_telling(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(TELL_S)

    def _tell(self) -> None:
        done, now = self._confirmed, int((time.time() - EPOCH_S) * 1e6)
        self._transport.write(_STATUS.pack(b"d", _STATUS.size - 1, b"r", done, done, done, now, 1))


async def drop_leftovers(url: str, password: str | None, slot: str) -> None:
    """A server that was the primary has the slot still when it is a replica, and keeps its log for nobody.

    Of the servers that `url` names, those that do not answer are left for the next time.
    """
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    servers = hosts.split(",") if "," in hosts else []
    for server in servers:
        one = urlunsplit(parts._replace(netloc=f"{user}@{server}", query=""))
        try:
            connection = await asyncpg.connect(one, password=password, timeout=CONNECT_WITHIN_S)
            try:
                await connection.execute(_LEFT, slot, timeout=CONNECT_WITHIN_S)
            finally:
                connection.terminate()
        except (asyncpg.PostgresError, *CONNECTION_LOST, TimeoutError):
            continue


def _fields(data: bytes) -> list[str]:
    fields, place = [], 2
    for _ in range(int.from_bytes(data[:2], "big")):
        size = int.from_bytes(data[place : place + 4], "big", signed=True)
        place += 4
        fields.append(data[place : place + size].decode() if size >= 0 else "")
        place += max(size, 0)
    return fields
