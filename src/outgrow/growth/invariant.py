"""What must hold between any two steps of a growth: the application serves, from one consistent database."""

from __future__ import annotations

import asyncio

from outgrow import cluster
from outgrow.errors import FleetError
from outgrow.growth.processes import Processes
from outgrow.growth.step import Context
from outgrow.supervisor.probe import until_ready
from outgrow.workload import Address, Probe

WITHIN_S = 10.0


async def check(context: Context) -> None:
    """Raises FleetError when it does not hold within a few seconds."""
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while (wrong := await _wrong(context)) is not None:
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(f"the application is not as it should be between two steps: {wrong}")
        await asyncio.sleep(0.1)


async def _wrong(context: Context) -> str | None:
    status = await cluster.status(context.directory, measured=False)
    down = [node.name for node in status.nodes if node.tier and node.state != "ready"]
    if down:
        return f"{', '.join(down)} not ready"
    application = context.after.application
    address = Address(application.host, application.port)
    try:
        await until_ready(Probe("http", address, path="/health/deep", timeout_s=2), {})
    except TimeoutError:
        return f"http://{address}/health/deep does not answer with 200"
    document = context.state.published()
    async with Processes(context.state.placement().control) as processes:
        for answer in await processes.ask("state"):
            if answer.held:
                return "writes are held"
            if document is None or answer.epoch != document.epoch:
                return "a process does not obey the newest endpoints"
    return None
