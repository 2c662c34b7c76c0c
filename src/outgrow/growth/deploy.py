"""A new release of the application, or the one before again: asked here, done by the fleet (rollout.py)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from outgrow.cluster import control, releases
from outgrow.cluster.control import Request, Tell
from outgrow.cluster.state import State
from outgrow.errors import FleetNotRunning, Misuse, OutgrowError
from outgrow.growth import journal as journals
from outgrow.growth.journal import Journal
from outgrow.topology import Topology


async def deploy(directory: Path, topology: Topology, *, tell: Tell) -> int:
    """Keep the application's folder as a release and run it with this topology; returns its number.

    Raises Misuse, FleetNotRunning, or what is wrong with the new version; the one before runs then.
    """
    state = State(directory)
    with _changing(state, "deploying"):
        place = state.placement()
        release = await asyncio.to_thread(releases.make, place, releases.data(place, topology))
        await _bring(state, "deploy", topology, release, tell)
        return release


async def rollback(directory: Path, read: Callable[[Path], Topology], *, tell: Tell) -> int:
    """Run the release before this one, with the topology that `read` finds in its folder.

    Returns its number. Raises like deploy.
    """
    state = State(directory)
    with _changing(state, "going back to the release before"):
        ran = state.ran()
        if len(ran) < 2:
            raise Misuse("no release before this one is kept", hint="`outgrow deploy` makes a new one")
        topology = read(state.placement()._replace(release=ran[-2]).code)
        await _bring(state, "rollback", topology, ran[-2], tell)
        return ran[-2]


async def _bring(state: State, what: str, topology: Topology, release: int, tell: Tell) -> None:
    began = time.time()
    said = f"{what}: release {release}"
    try:
        request = Request("deploy", topology=topology, release=release)
        await control.change(state.application, request, tell=tell)
    except OutgrowError as error:
        journals.audit(state.growth, began, said, str(release), f"failed: {error.message}")
        raise
    journals.audit(state.growth, began, said, str(release), "done")


@contextlib.contextmanager
def _changing(state: State, why: str) -> Iterator[None]:
    if state.holder() is None:
        raise FleetNotRunning(str(state.application))
    with journals.locked(state.growth, why):
        journals.require_none(Journal(state.growth))
        yield
