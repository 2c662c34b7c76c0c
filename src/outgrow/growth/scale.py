"""More or fewer servers and processes, while the application serves: one change, without a journal.

outgrow.toml is written first and says what is wanted from then on. A fleet whose command is killed after
that becomes it nevertheless; one that is started or scaled again does so too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from outgrow import cluster
from outgrow.cluster import control
from outgrow.cluster.control import Request, Tell
from outgrow.cluster.state import State
from outgrow.engines.patroni.patroni import PREFIX
from outgrow.errors import FleetNotRunning, Misuse, OutgrowError
from outgrow.growth import journal as journals
from outgrow.growth import settings
from outgrow.growth.journal import Journal
from outgrow.growth.settings import FILE, Value


async def scale(directory: Path, figures: Mapping[str, Value], stage: str, *, tell: Tell) -> None:
    """Write these keys ("application.servers") into outgrow.toml, and have the fleet become what it says.

    `stage` is the one that runs. Raises Misuse, FleetNotRunning or what the fleet raises; outgrow.toml is
    as it was before then.
    """
    state = State(directory)
    if state.holder() is None:
        raise FleetNotRunning(str(directory))
    what = " ".join(f"{key}={value}" for key, value in figures.items())
    if settings.REPLICAS in figures:
        await _make_room(directory, int(figures[settings.REPLICAS]))
    with journals.locked(state.growth, f"scaling to {what}"):
        journals.require_none(Journal(state.growth))
        began, file = time.time(), directory / FILE
        wanted = settings.require_settable(file, figures)
        if wanted.stage != stage:
            raise Misuse(
                f"the fleet runs at stage {stage}, and outgrow.toml says {wanted.stage}",
                hint=f'write stage = "{stage}" first: what is scaled now must start again like that',
            )
        before = file.read_text(encoding="utf-8")
        settings.write(file, settings.with_values(before, figures))
        try:
            await control.change(directory, Request("become", topology=wanted), tell=tell)
        except OutgrowError as error:
            settings.write(file, before)
            journals.audit(state.growth, began, "scale", what, f"failed: {error.message}")
            raise
        journals.audit(state.growth, began, "scale", what, "done")


async def _make_room(directory: Path, replicas: int) -> None:
    """A primary that is to go is one no more. Raises Misuse where replicas come or end at all."""
    from outgrow.growth import primary  # it needs PostgreSQL's driver

    running = (await control.topology(directory)).database.copies
    if bool(running) != bool(replicas):
        way = "outgrow shrink" if running else "outgrow grow replication"
        raise Misuse(
            f"from {running} to {replicas} replicas the data moves to other nodes", hint=f"`{way}` does it"
        )
    status = await cluster.status(directory, measured=False)
    first = next((node.name for node in status.nodes if node.role == "primary"), "")
    staying = {f"{PREFIX}{number}" for number in range(1, replicas + 2)}
    if first and first not in staying:
        await primary.switchover(directory, f"{PREFIX}1")
