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
from outgrow.cluster.processes import Processes
from outgrow.endpoints import Endpoints, Node
from outgrow.errors import FleetError, VerificationFailed, told
from outgrow.growth import settings
from outgrow.growth.data import copying
from outgrow.growth.data.columns import Table
from outgrow.growth.data.copying import Changes, Snapshot, Store
from outgrow.growth.pace import Pace
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology

HOLD_S = 10.0
"""A process goes on by itself after that."""

HOLD_SHARE = 0.7
"""Of the time for which a write block waits: when the last changes are not done by then, it is given up."""

ATTEMPTS = 5
PAUSE_S = 0.5
"""Between two attempts to hold the writes, so that those who have waited get through."""

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
            Step("create-schema", "run the migrations there", self.create_schema, verify=self.examine),
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
            try:
                _, errors = await process.communicate()
            finally:
                await _ended(process)
        if process.returncode:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise next(filter(None, map(told, last)), FleetError(f"the migrations failed: {''.join(last)}"))

    async def examine(self, context: Context) -> None:
        """Whether all of it can be moved. Nothing of the source has been touched yet."""
        await self.tables(context)

    async def capture(self, context: Context) -> None:
        """Triggers of the source note keys."""
        await (await self.source(context)).capture(await self.tables(context))

    async def release(self, context: Context) -> None:
        """The source as it was."""
        source = await self.source(context)
        await source.unfence()
        await source.release()

    async def copy(self, context: Context) -> None:
        """Every row of one moment."""
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        async with _pace(context) as pace:
            mark = await copying.copy(source, target, tables, context.says, pace.rest)
        context.keep({"mark": mark})

    async def verify(self, context: Context) -> None:
        """Catch up until little is left, then compare everything at one moment."""
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        mark = await self._catch_up(context, int(context.kept["mark"]))
        await target.go_on(tables)
        await target.finish()
        async with source.snapshot() as snapshot:
            await copying.catch_up(snapshot, target, tables, mark)
            async with target.snapshot() as copied, _pace(context) as pace:
                digest = await copying.verify(snapshot, copied, tables, context.says, pace.rest)
            context.keep({"mark": snapshot.mark, "checksum": digest})

    async def _catch_up(self, context: Context, mark: int) -> int:
        """Until little is left. Returns the new mark."""
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        for _ in range(copying.ROUNDS_MAX):
            async with source.snapshot() as snapshot, _pace(context) as pace:
                changes = await copying.catch_up(snapshot, target, tables, mark, pace.rest)
                mark = snapshot.mark
            context.says(f"{changes.rows:,} rows had changed")
            if changes.rows <= copying.SMALL:
                break
        return mark

    async def switch(self, context: Context) -> None:
        """The decisive step. When it was cut off behind that point, everybody is told what holds."""
        if not context.decided:
            await self._switch(context)
        else:
            async with (await self.source(context)).locked() as last:
                await last.fence()
                await last.commit()
        async with Processes(context.state.placement().control) as everybody:
            await everybody.ask("reload")
        if "held_s" in context.kept:
            context.says(f"writes were held for {context.kept['held_s']:.3f} s")

    async def _switch(self, context: Context) -> None:
        """Try until the writes can be held for long enough. Raises FleetError after some attempts."""
        for attempt in range(1, ATTEMPTS + 1):
            mark = await self._catch_up(context, int(context.kept["mark"]))
            context.keep({"mark": mark})
            try:
                await self._switch_once(context, mark)
                break
            except VerificationFailed:
                raise
            except FleetError as error:
                if attempt == ATTEMPTS or context.decided:
                    raise
                context.says(f"the writes went on: {error.message}. It is tried again")
                await asyncio.sleep(PAUSE_S)

    async def _switch_once(self, context: Context, mark: int) -> None:
        source, target = await self.source(context), await self.target(context)
        tables = await self.tables(context)
        async with target.snapshot() as copied:
            counts = {table.name: await copied.count(table) for table in tables}
        folder = context.state.placement().control
        async with Processes(folder) as processes, source.kept_open(), target.kept_open():
            await processes.ask("warm", engine=context.after.database.engine)
            watch = _Watch()
            limit_s = min(HOLD_S, context.before.database.checkout_timeout) * HOLD_SHARE
            await processes.hold(HOLD_S)
            watch.passed("writers ended")
            async with source.locked() as last:
                changes = await copying.catch_up(last, target, tables, mark)
                watch.passed(f"{changes.rows:,} rows copied")
                await _require_counts(last, tables, counts, changes)
                watch.passed("counted")
                await processes.hold(HOLD_S)  # who has come meanwhile
                if watch.total_s > limit_s:
                    raise FleetError(f"the last {changes.rows:,} changes took {watch.total_s:.1f} s")
                await last.fence()
                document = self.document(context)
                context.keep({DECISIVE_EPOCH: document.epoch})
                endpoints.write(context.state.placement().endpoints, document)
                await last.commit()
            watch.passed("published")
            await processes.ask("reload")
            await processes.ask("release")
            watch.passed("connected")
            context.keep({"held_s": round(watch.total_s, 3), "held_for": watch.parts})

    async def settle(self, context: Context) -> None:
        """What is left to do when the data has moved."""
        source = await self.source(context)
        await source.release()
        settings.settle(context.directory, context.after)
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
            nodes=(Node(endpoints.DATABASE, self.url(context)),),
            secrets_file=before.secrets_file,
            control=before.control,
        )
        shards = tuple(
            replace(shard, timeline=earlier.timeline + TIMELINE_STEP)
            for shard, earlier in zip(made.database.shards, before.database.shards, strict=True)
        )
        database = replace(made.database, shards=shards)
        return replace(made, moved=True, database=database, cache=before.cache, sessions=before.sessions)


def _pace(context: Context) -> Pace:
    return Pace(context.state.placement().control)


class _Watch:
    """How long the writes are held, and with what."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.parts: dict[str, float] = {}

    @property
    def total_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def passed(self, part: str) -> None:
        """A part has ended."""
        self.parts[part] = round(self.total_s - sum(self.parts.values()), 3)


async def _require_counts(
    last: Snapshot, tables: list[Table], counts: dict[str, int], changes: Changes
) -> None:
    """What no trigger has noted shows here, if it has added or removed a row."""
    for table in tables:
        held = counts[table.name] + changes.grown.get(table.name, 0)
        if (count := await last.count(table)) != held:
            raise VerificationFailed(f"table {table.name}: {count:,} rows, and {held:,} in the copy")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """It does not outlive whoever waits for it."""
    if process.returncode is None:
        process.kill()
        await process.wait()
