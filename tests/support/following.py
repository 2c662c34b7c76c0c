"""An application whose shared cache follows what changes in a table of notes, in this process or others."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, bindparam, select

from outgrow import Outgrow, endpoints
from outgrow.endpoints import Endpoints, Node, Secrets
from outgrow.runtime.database.postgres_publication import publish
from tests.support.cache import CacheServer
from tests.support.postgres import PostgresServer

WITHIN_S = 30.0
APPLICATION_OF_TESTS = "test"

notes = Table(
    "notes",
    MetaData(),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner", Text),
    Column("title", Text),
)
TITLE = select(notes.c.title).where(notes.c.id == bindparam("id"))


class World:
    """A database with the table, a role that reads changes, and a shared cache."""

    def __init__(self, server: PostgresServer, cache: CacheServer, name: str = "") -> None:
        self.server, self.cache = server, cache
        self.database = name or urlsplit(server.create_database()).path[1:]
        self.role = f"reader_{self.database}"
        self.password = secrets.token_hex(8)
        self.application = secrets.token_hex(32)

    @property
    def slot(self) -> str:
        return f"{APPLICATION_OF_TESTS}_changes"

    def make(self) -> None:
        """The table and the role. Nothing is published yet."""
        self.sql("CREATE TABLE notes (id bigint PRIMARY KEY, owner text, title text)")
        self.sql("CREATE TABLE others (id bigint PRIMARY KEY)")
        self.sql(f"CREATE ROLE {self.role} LOGIN REPLICATION PASSWORD '{self.password}'")

    async def publish(self, *tables: str) -> None:
        await publish(self.server.url(self.database), None, tables)

    def sql(self, text: str) -> Any:
        """From outside of the application."""
        return self.server.execute(text, self.database)

    def drop_slot(self) -> None:
        """It is of this database, and others want its name."""
        drop_slot(self.server, self.slot)

    def document(self, *ports: int) -> Endpoints:
        """For servers at these ports, by default the one."""
        found = [urlsplit(self.server.url(self.database))._replace(netloc="") for _ in ports or (1,)]
        at = ports or (self.server.port,)
        nodes = tuple(
            Node(
                f"db-{number}" if len(at) > 1 else "db",
                f"postgresql://{self.server.user}@127.0.0.1:{port}{found[0].path}",
                "primary" if number == 0 else "replica",
            )
            for number, port in enumerate(at)
        )
        hosts = ",".join(f"127.0.0.1:{port}" for port in at)
        return Endpoints(
            application=APPLICATION_OF_TESTS,
            stage="cache",
            database=endpoints.Database(engine="postgres", shards=(endpoints.Shard("0", nodes),), pool=4),
            cache=endpoints.Cache(
                engine="redis",
                url=self.cache.url,
                changes_url=f"postgresql://{self.role}@{hosts}/{self.database}?target_session_attrs=primary",
            ),
        )

    @property
    def secrets(self) -> Secrets:
        passwords = {"*": self.server.password, "cache": self.cache.password, "changes": self.password}
        return Secrets(application=self.application, passwords=passwords)

    def process(self, *ports: int) -> Outgrow:
        """One of the application's."""
        og = Outgrow(self.document(*ports), self.secrets)
        declare(og)
        return og

    def other_process(self, directory: Path, number: int = 1) -> subprocess.Popen[bytes]:
        """One that can be killed. It only follows."""
        file = directory / f"secrets-{number}.json"
        endpoints.write(file, self.secrets)
        document = directory / f"endpoints-{number}.json"
        from msgspec.structs import replace

        endpoints.write(document, replace(self.document(), secrets_file=str(file)))
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.following"],
            env={**os.environ, "OUTGROW_ENDPOINTS": str(document)},
        )


def drop_slot(server: PostgresServer, name: str) -> None:
    """As soon as whoever has read is gone."""
    slot = f"FROM pg_replication_slots WHERE slot_name = '{name}'"
    deadline = monotonic() + WITHIN_S
    while server.execute(f"SELECT 1 {slot}"):
        server.execute(f"SELECT pg_terminate_backend(active_pid) {slot} AND active")
        server.execute(f"SELECT pg_drop_replication_slot(slot_name) {slot} AND NOT active")
        assert monotonic() < deadline, "somebody reads still"


def declare(og: Outgrow) -> None:
    """Which tags a note has. One that is called "broken" has none."""

    @og.cache.changes("notes")
    def tags_of_note(row: Mapping[str, Any]) -> Iterable[str]:
        if row["title"] == "broken":
            raise LookupError("no tags")
        yield f"note:{row['id']}"
        yield f"owner:{row['owner']}"


class Reader:
    """Reads titles through the cache of a process, and counts the loads."""

    def __init__(self, og: Outgrow) -> None:
        self.og, self.loads = og, 0

    async def title(self, number: int, *tags: str) -> str | None:
        async def load() -> str | None:
            self.loads += 1
            async with self.og.db.read() as tx:
                found: str | None = await tx.value(TITLE, id=number)
                return found

        return await self.og.cache.get(f"note:{number}", load, ttl="1h", tags=tags)

    async def shows(self, number: int, title: str | None) -> float:
        """Seconds until it does."""
        return await until(lambda: self.title(number), title)


async def until(read: Callable[[], Awaitable[Any]], wanted: Any) -> float:
    """Seconds until it gives this."""
    started = monotonic()
    while (found := await read()) != wanted:
        assert monotonic() < started + WITHIN_S, f"{found!r} is not {wanted!r}"
        await asyncio.sleep(0.002)
    return monotonic() - started


async def reads(og: Outgrow) -> None:
    """Until this process is the one that follows, and knows that all before is told."""
    following = og._following
    assert following is not None

    async def ready() -> bool:
        return following.reads

    await until(ready, True)


async def main() -> None:
    og = Outgrow()
    declare(og)
    async with og:
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
