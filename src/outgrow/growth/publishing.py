"""What a move asks of the running fleet, and of every process of the application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.cluster.processes import Processes
from outgrow.errors import FleetError
from outgrow.growth.step import Context

PATIENCE_S = 8.0
PAUSE_S = 0.2

T = TypeVar("T")


async def change(context: Context, request: Request) -> None:
    """Have the fleet do it. Raises what the fleet raises."""
    await control.change(context.directory, request, tell=lambda change: context.says(change.node))


async def until_obeyed(context: Context) -> None:
    """Until every process obeys the newest endpoints. Raises FleetError when one does not."""
    await patiently(lambda: _obeyed(context))


async def _obeyed(context: Context) -> None:
    published = context.state.published()
    assert published is not None
    async with Processes(context.state.placement().control) as processes:
        if any(answer.epoch < published.epoch for answer in await processes.ask("reload")):
            raise FleetError("a process does not obey the newest endpoints")


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Again, for a while: a server that has died is back by then, and a process that hung goes on."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            return await work()
        except FleetError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(PAUSE_S)
