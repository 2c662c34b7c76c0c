"""Moving all data from one database to another while the application serves: what every such move shares.

prepare ─► create-schema ─► capture ─► copy ─► verify ─► switch ─► settle
                               └ changes are noted ┘        │
hold writes ─► lock the source ─► last changes ─► fence ─► publish endpoints ─► let go
                                                            └ from here on the data is there
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from msgspec.structs import replace

from outgrow import endpoints
from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.endpoints import Endpoints
from outgrow.errors import FleetError, VerificationFailed, told
from outgrow.growth import settings
from outgrow.growth.data import copying
from outgrow.growth.data.columns import Table
from outgrow.growth.data.copying import Snapshot, Store
from outgrow.growth.processes import Processes
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology

HOLD_S = 10.0
"""A process goes on by itself after that. What must be done within a hold is given up before."""

HOLD_MARGIN_S = 2.0
TIMELINE_STEP = 1 << 16
"""More than any server counts timelines: after a move every position is later than all before."""


class Relocation(ABC):
    """A move of the data. A subclass knows the two databases."""

    name: ClassVar[str]
    says: ClassVar[str]

    @abstractmethod
    def fits(self, before: Topology, after: Topology) -> bool:
        """Whether it leads from one to the other."""

    @abstractmethod
    async def prepare(self, context: Context) -> None:
        """Have the target there, empty or with what may go."""

    @abstractmethod
    async def unprepare(self, context: Context) -> None:
        """Take the target away again."""

    @abstractmethod
    async def retire(self, context: Context) -> None:
        """The source is needed no more; its data stays as the way back."""

    @abstractmethod
    async def source(self, context: Context) -> Store:
        """Where the data is."""

    @abstractmethod
    async def target(self, context: Context) -> Store:
        """Where it is to be."""

    @abstractmethod
    async def tables(self, context: Context) -> list[Table]:
        """What there is to move. Raises FleetError when something of it cannot be moved."""

    @abstractmethod
    def url(self, context: Context) -> str:
        """The target, for the application."""

    @abstractmethod
    def migration_variables(self, context: Context) -> dict[str, str]:
        """For the migrations of the target."""

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (
            Step("prepare", "start the database to move to", self.prepare, undo=self.unprepare, lasting=True),
            Step("create-schema", "run the migrations there", self.create_schema),
            Step("capture", "note what changes from now on", self.capture, undo=self.release),
            Step("copy", "copy every row", self.copy),
            Step("verify", "copy what has changed, compare everything", self.verify),
            Step("switch", "hold writes, copy the last changes, switch", self.switch),
            Step("settle", "write outgrow.toml, put the old database aside", self.settle),
        )

    async def create_schema(self, context: Context) -> None:
        """The application's migrations and Outgrow's own tables."""
        with tempfile.TemporaryDirectory(prefix="outgrow-") as folder:
            document = Path(folder) / "endpoints.json"
            endpoints.write(document, self.document(context))
            variables = {**self.migration_variables(context), "OUTGROW_ENDPOINTS": str(document)}
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "outgrow.runtime.database.migrate",
                cwd=context.directory,
                env={**os.environ, **context.after.application.environment, **variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
        if process.returncode:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise next(filter(None, map(told, last)), FleetError(f"the migrations failed: {''.join(last)}"))

    async def capture(self, context: Context) -> None:
        """Triggers of the source note keys."""
        await (await self.source(context)).capture(await self.tables(context))

    async def release(self, context: Context) -> None:
        """The source as it was."""
        source = await self.source(context)
        await source.unfence()
        await source.release(await self.tables(context))

    async def copy(self, context: Context) -> None:
        """Every row of one moment."""
        source, target = await self.source(context), await self.target(context)
        mark = await copying.copy(source, target, await self.tables(context), context.says)
        context.keep({"mark": mark})

    async def verify(self, context: Context) -> None:
        """Catch up until little is left, then compare everything at one moment."""
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        mark = int(context.kept["mark"])
        for _ in range(copying.ROUNDS_MAX):
            async with source.snapshot() as snapshot:
                count = await copying.catch_up(snapshot, target, tables, mark)
                mark = snapshot.mark
            context.says(f"{count:,} rows had changed")
            if count <= copying.SMALL:
                break
        async with source.snapshot() as snapshot:
            await copying.catch_up(snapshot, target, tables, mark)
            async with target.snapshot() as copied:
                digest = await copying.verify(snapshot, copied, tables, context.says)
            mark = snapshot.mark
        await target.finish(tables)
        context.keep({"mark": mark, "checksum": digest})

    async def switch(self, context: Context) -> None:
        """The decisive step."""
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        async with Processes(context.state.placement().control) as processes:
            if not self._published(context):
                began = time.monotonic()
                await processes.ask("hold", seconds=HOLD_S)
                async with source.locked() as last:
                    await self._last_changes(last, target, tables, context)
                    if time.monotonic() - began > HOLD_S - HOLD_MARGIN_S:
                        raise FleetError(
                            "the last changes took longer than writes may be held", hint="try again"
                        )
                    await last.fence()
                    document = self.document(context)
                    context.keep({DECISIVE_EPOCH: document.epoch})
                    endpoints.write(context.state.placement().endpoints, document)
                    await last.commit()
                await processes.ask("reload")
                await processes.ask("release")
                context.keep({"held_s": round(time.monotonic() - began, 3)})
            else:  # cut off in the middle of it: everybody obeys the document already, or does so now
                await processes.ask("reload")
                async with source.locked() as last:
                    await last.fence()
                    await last.commit()
        if "held_s" in context.kept:
            context.says(f"writes were held for {context.kept['held_s']:.3f} s")

    async def settle(self, context: Context) -> None:
        """What is left to do when the data has moved."""
        source = await self.source(context)
        await source.release(await self.tables(context))
        settings.set_stage(context.directory / "outgrow.toml", context.after.stage)
        request = Request("adopt", topology=context.after)
        await control.change(context.directory, request, tell=lambda change: None)
        await self.retire(context)

    def document(self, context: Context) -> Endpoints:
        """The endpoints after the move."""
        before = context.state.published()
        assert before is not None
        made = endpoints.from_topology(
            context.after,
            context.directory,
            epoch=before.epoch + 1,
            database_url=self.url(context),
            secrets_file=before.secrets_file,
            control=before.control,
        )
        shards = tuple(
            replace(shard, timeline=earlier.timeline + TIMELINE_STEP)
            for shard, earlier in zip(made.database.shards, before.database.shards, strict=True)
        )
        return replace(made, moved=True, database=replace(made.database, shards=shards))

    def _published(self, context: Context) -> bool:
        epoch, document = context.kept.get(DECISIVE_EPOCH), context.state.published()
        return epoch is not None and document is not None and document.epoch >= epoch

    async def _last_changes(
        self, last: Snapshot, target: Store, tables: list[Table], context: Context
    ) -> None:
        """Copy and compare what has changed since everything was compared."""
        changed = await last.changed(tables, int(context.kept["mark"]))
        by_name = {table.name: table for table in tables}
        changes = [
            (by_name[name], keys, await last.rows(by_name[name], keys)) for name, keys in changed.items()
        ]
        await target.replace(changes)
        async with target.snapshot() as copied:
            for table, keys, rows in changes:
                held = {table.key_of(row): row for row in await copied.rows(table, keys)}
                wanted = {table.key_of(row): row for row in rows}
                if copying.checksum(_ordered(held)) != copying.checksum(_ordered(wanted)):
                    raise VerificationFailed(f"table {table.name}: the last changes differ in the copy")
            for table in tables:
                if await last.count(table) != await copied.count(table):
                    raise VerificationFailed(f"table {table.name}: the copy has another number of rows")
        context.says(f"{sum(map(len, changed.values())):,} rows changed last")


def _ordered(rows: dict[tuple[object, ...], tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [rows[key] for key in sorted(rows, key=repr)]
