"""Stage 1 to stage 2, live: from the SQLite file to a PostgreSQL that the fleet starts."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

from outgrow import endpoints
from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.plan import capped, replicated, runs_postgres
from outgrow.engines import backup
from outgrow.engines.application import Application
from outgrow.engines.base import Placement
from outgrow.engines.pgbouncer import pgbouncer
from outgrow.engines.postgres.postgres import COPY, PORT, Postgres
from outgrow.errors import FleetError, FleetNotRunning
from outgrow.growth.data.columns import Table, require_movable, require_same
from outgrow.growth.data.postgres import PostgresStore
from outgrow.growth.data.sqlite import SqliteStore
from outgrow.growth.relocation import Relocation
from outgrow.growth.step import Context
from outgrow.topology import Topology

SERVER = (pgbouncer.NAME, COPY, "postgres-init", "postgres", "postgres-provision")
NODES = (backup.KEEPER, backup.ARCHIVER, *SERVER)


class SqliteToPostgres(Relocation):
    """The SQLite file stays, as the way back."""

    name = "sqlite-to-postgres"
    says = "moves all data from SQLite to a PostgreSQL of its own"

    def fits(self, before: Topology, after: Topology) -> bool:
        alone = runs_postgres(after) and not replicated(after) and not after.balancer.engine
        return before.database.engine == "sqlite" and alone

    async def prepare(self, context: Context) -> None:
        """Start PostgreSQL. Raises FleetError when it holds data that nobody has moved away from it."""
        context.state.keep_secrets(context.after)
        require_published(context, f"sqlite:///{sqlite_file(context, context.before)}")
        if "host" not in context.kept:
            fresh = not (context.state.placement().data / "postgres").exists()
            context.keep({"host": context.state.free_host((1, PORT)), "fresh": fresh})
        workloads = tuple(capped(each, context.after) for each in self._server(context).workloads())
        request = Request("start", workloads=workloads)
        await control.change(context.directory, request, tell=lambda change: context.says(change.node))
        if "claimed" not in context.kept:
            await self._require_disposable(context)
            context.keep({"claimed": True})

    async def unprepare(self, context: Context) -> None:
        """End the server, and remove what this growth has put into it."""
        await stop_postgres(context)
        if context.kept.get("claimed") or context.kept.get("fresh"):
            data = context.state.placement().data
            await asyncio.to_thread(shutil.rmtree, data / "postgres", ignore_errors=True)

    async def retire(self, context: Context) -> None:
        """A file needs no end. Its successor has backups from now on, where outgrow.toml says so."""
        if context.after.backup.directory is not None:
            server = self._server(context)
            engine = backup.Backup(context.after, self._placement(context), server.owner_url, server.last)
            request = Request("start", workloads=engine.workloads())
            await control.change(context.directory, request, tell=lambda change: context.says(change.node))

    async def source(self, context: Context) -> SqliteStore:
        return SqliteStore(sqlite_file(context, context.before))

    async def target(self, context: Context) -> PostgresStore:
        return postgres_store(self._server(context), context)

    async def tables(self, context: Context) -> list[Table]:
        """What PostgreSQL's migrations have made; the file must have the same."""
        tables = await (await self.target(context)).tables()
        require_same(tables, await (await self.source(context)).columns())
        require_movable(tables)
        return tables

    def url(self, context: Context) -> str:
        return self._server(context).url

    def migration_variables(self, context: Context) -> dict[str, str]:
        """As the owner of the schema."""
        application = Application(context.after, self._placement(context))
        application.owner_url = self._server(context).owner_url
        return application.migration_variables()

    def _server(self, context: Context) -> Postgres:
        return Postgres(context.after, self._placement(context))

    def _placement(self, context: Context) -> Placement:
        return context.state.placement(str(context.kept["host"]))

    async def _require_disposable(self, context: Context) -> None:
        before = context.state.published()
        if before is not None and before.moved and before.database.engine == "sqlite":
            return  # what is there was brought back from it
        store = await self.target(context)
        async with store.snapshot() as snapshot:
            held = [table.name for table in await store.tables() if await snapshot.count(table)]
        if held:
            raise FleetError(
                f"PostgreSQL holds data of its own already, in {', '.join(held)}",
                hint="it comes from a run with `--stage separate-database`; to give it up, stop the fleet "
                f"and remove {context.state.placement().data / 'postgres'}",
            )


def sqlite_file(context: Context, topology: Topology) -> Path:
    """Where the SQLite file of a topology is."""
    assert topology.database.file is not None
    return context.directory / topology.database.file


def postgres_store(server: Postgres, context: Context) -> PostgresStore:
    """As the superuser of the fleet."""
    secrets = endpoints.read_secrets(context.state.placement().operator_secrets)
    return PostgresStore(server.admin_url, secrets.passwords["admin"], server.role)


def require_published(context: Context, url: str, pooler: str = "") -> None:
    """Raises FleetError when the application works with something else than outgrow.toml says now.

    `pooler` is where the same database is reached through one.
    """
    document = context.state.published()
    if context.decided or document is None:
        return
    published = document.database.shards[0].nodes[0].url
    if published not in (url, pooler):
        raise FleetError(
            f"the application works with {published}, and outgrow.toml says {url}",
            hint="stop the fleet and start it again with this outgrow.toml, then grow",
        )


async def stop_postgres(context: Context) -> None:
    """End it, if it runs."""
    with contextlib.suppress(FleetNotRunning):
        await control.change(context.directory, Request("remove", names=NODES), tell=lambda change: None)


async def stop_pooler(context: Context) -> None:
    """End it, if it runs, once the transactions through it have ended."""
    with contextlib.suppress(FleetNotRunning):
        request = Request("remove", names=(pgbouncer.NAME,))
        await control.change(context.directory, request, tell=lambda change: None)
