"""Stage 2 back to stage 1, live, with everything that was written meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped, replicated, runs_postgres
from outgrow.engines.application import Application
from outgrow.engines.pgbouncer import pgbouncer
from outgrow.engines.postgres.postgres import Postgres
from outgrow.growth.data.columns import Table, require_movable, require_same
from outgrow.growth.data.postgres import PostgresStore
from outgrow.growth.data.sqlite import SqliteStore
from outgrow.growth.moves.sqlite_to_postgres import (
    postgres_store,
    require_published,
    sqlite_file,
    stop_pooler,
    stop_postgres,
)
from outgrow.growth.relocation import Relocation
from outgrow.growth.step import Context
from outgrow.topology import Topology

ASIDE = ".before"
READERS_WITHIN_S = 65.0
"""Longer than a process waits for blocks on a database that was left (runtime/database/database.py)."""


class PostgresToSqlite(Relocation):
    """What the SQLite file held before is put aside; PostgreSQL's data directory stays."""

    name = "postgres-to-sqlite"
    says = "moves all data from PostgreSQL back to a SQLite file"

    def fits(self, before: Topology, after: Topology) -> bool:
        alone = runs_postgres(before) and not replicated(before) and not before.balancer.engine
        return alone and after.database.engine == "sqlite"

    async def prepare(self, context: Context) -> None:
        """Put the file of earlier days aside; after a restart of the fleet have PostgreSQL run again."""
        if "host" not in context.kept:
            published = context.state.published()
            assert published is not None
            context.keep({"host": urlsplit(published.database.shards[0].nodes[0].url).hostname})
        workloads = tuple(capped(each, context.before) for each in self._server(context).workloads())
        request = Request("start", workloads=workloads)
        await control.change(context.directory, request, tell=lambda change: context.says(change.node))
        if "claimed" not in context.kept:
            server = self._server(context)
            require_published(context, server.url, pgbouncer.url(server.role, str(context.kept["host"])))
            require_movable(await (await self.source(context)).tables())
            self._put_aside(context)

    def _put_aside(self, context: Context) -> None:
        parts = _parts(sqlite_file(context, context.after))
        if "aside" not in context.kept:
            for _, aside in parts:
                aside.unlink(missing_ok=True)
            context.keep({"aside": True})
        for held, aside in parts:
            if held.exists():
                held.replace(aside)
        context.keep({"claimed": True})

    async def unprepare(self, context: Context) -> None:
        if "aside" not in context.kept:
            return
        for held, aside in _parts(sqlite_file(context, context.after)):
            if "claimed" in context.kept:
                held.unlink(missing_ok=True)
            if aside.exists():
                aside.replace(held)

    async def retire(self, context: Context) -> None:
        """Reads that began before the switch end where they are."""
        source = await self.source(context)
        await stop_pooler(context)  # its idle connections would count as users
        deadline = asyncio.get_running_loop().time() + READERS_WITHIN_S
        while await source.users() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.2)
        await stop_postgres(context)

    async def source(self, context: Context) -> PostgresStore:
        return postgres_store(self._server(context), context)

    async def target(self, context: Context) -> SqliteStore:
        return SqliteStore(sqlite_file(context, context.after))

    async def tables(self, context: Context) -> list[Table]:
        """What PostgreSQL holds; the file must have the same once its migrations have run."""
        tables = await (await self.source(context)).tables()
        require_movable(tables)
        require_same(tables, await (await self.target(context)).columns())
        return tables

    def url(self, context: Context) -> str:
        return f"sqlite:///{sqlite_file(context, context.after)}"

    def migration_variables(self, context: Context) -> dict[str, str]:
        return Application(context.after, context.state.placement()).migration_variables()

    def _server(self, context: Context) -> Postgres:
        return Postgres(context.before, context.state.placement(str(context.kept["host"])))


def _parts(file: Path) -> list[tuple[Path, Path]]:
    """The file and what SQLite keeps beside it, and where each is put aside."""
    return [
        (file.with_name(file.name + part), file.with_name(f"{file.name}{ASIDE}{part}"))
        for part in ("", "-wal", "-shm")
    ]
