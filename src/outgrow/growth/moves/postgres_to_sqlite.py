"""Stage 2 back to stage 1, live, with everything that was written meanwhile."""

from __future__ import annotations

from urllib.parse import urlsplit

from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.plan import runs_postgres
from outgrow.engines.application import Application
from outgrow.engines.postgres import Postgres
from outgrow.growth.data.columns import Table
from outgrow.growth.data.postgres import PostgresStore
from outgrow.growth.data.sqlite import SqliteStore
from outgrow.growth.moves.sqlite_to_postgres import NODES, postgres_store, require_same_tables, sqlite_file
from outgrow.growth.relocation import Relocation
from outgrow.growth.step import Context
from outgrow.topology import Topology

ASIDE = ".before"
_PARTS = ("", "-wal", "-shm")


class PostgresToSqlite(Relocation):
    """What the SQLite file held before is put aside; PostgreSQL's data directory stays."""

    name = "postgres-to-sqlite"
    says = "moves all data from PostgreSQL back to a SQLite file"

    def fits(self, before: Topology, after: Topology) -> bool:
        return runs_postgres(before) and after.database.engine == "sqlite"

    async def prepare(self, context: Context) -> None:
        """Put aside what the file held when the data left it."""
        if "claimed" in context.kept:
            return
        published = context.state.published()
        assert published is not None
        host = urlsplit(published.database.shards[0].nodes[0].url).hostname
        file = sqlite_file(context, context.after)
        for part in _PARTS:
            held = file.with_name(file.name + part)
            if held.exists():
                held.replace(file.with_name(f"{file.name}{ASIDE}{part}"))
        context.keep({"host": host, "claimed": True})

    async def unprepare(self, context: Context) -> None:
        """The file as it was."""
        if not context.kept.get("claimed"):
            return
        file = sqlite_file(context, context.after)
        for part in _PARTS:
            file.with_name(file.name + part).unlink(missing_ok=True)
            aside = file.with_name(f"{file.name}{ASIDE}{part}")
            if aside.exists():
                aside.replace(file.with_name(file.name + part))

    async def retire(self, context: Context) -> None:
        await control.change(context.directory, Request("remove", names=NODES), tell=lambda change: None)

    async def source(self, context: Context) -> PostgresStore:
        return postgres_store(self._server(context), context)

    async def target(self, context: Context) -> SqliteStore:
        return SqliteStore(sqlite_file(context, context.after))

    async def tables(self, context: Context) -> list[Table]:
        """What PostgreSQL holds; the file must have the same once its migrations have run."""
        tables = await (await self.source(context)).tables()
        if sqlite_file(context, context.after).exists():
            require_same_tables(tables, await (await self.target(context)).names())
        return tables

    def url(self, context: Context) -> str:
        return f"sqlite:///{sqlite_file(context, context.after)}"

    def migration_variables(self, context: Context) -> dict[str, str]:
        return Application(context.after, context.state.placement()).migration_variables()

    def _server(self, context: Context) -> Postgres:
        return Postgres(context.before, context.state.placement(str(context.kept["host"])))
