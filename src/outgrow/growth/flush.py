"""What the caches of a running fleet are told to forget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from outgrow import cluster, endpoints
from outgrow.cluster.processes import Answer, Processes
from outgrow.cluster.state import State
from outgrow.errors import FleetError, OutgrowError
from outgrow.growth import journal as journals
from outgrow.growth.publishing import patiently

CHANGE = "cache flush"


async def flush(directory: Path, tags: Sequence[str]) -> None:
    """Have every process forget what has one of these tags or keys; everything without any.

    It takes no lock: to forget is right at any moment, also while the application grows. Raises
    FleetNotRunning, or FleetError when not all of them have done so.
    """
    state, began = State(directory), time.time()
    await cluster.status(directory, measured=False)
    to = " ".join(tags) or "everything"
    try:
        answers = await patiently(lambda: _tell(state, tags))
        if not answers:
            hint = "it has a cache where its code opens an Outgrow; `outgrow status` shows whether it runs"
            raise FleetError("no process of the application has a cache", hint=hint)
    except OutgrowError as error:
        journals.audit(state.growth, began, CHANGE, to, f"failed: {error.message}")
        raise
    journals.audit(state.growth, began, CHANGE, to, "done")


async def _tell(state: State, tags: Sequence[str]) -> list[Answer]:
    place = state.placement()
    # Of processes that share a cache one tells all the others.
    shared = endpoints.read(place.endpoints).cache.engine == "redis"
    async with Processes(place.control) as processes:
        ask = processes.ask_one if shared else processes.ask
        return await ask("flush", tags=tags)
