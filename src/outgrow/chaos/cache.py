"""What the drills of the shared cache have in common: whatever it suffers, nothing but time may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from outgrow import endpoints
from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost
from outgrow.chaos.faults.fill import Fill
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.cluster.state import State
from outgrow.engines.redis.cache import NAME, names
from outgrow.supervisor.orphans import Note
from outgrow.topology import Topology

BACK_WITHIN_S = 10.0
"""It has nothing to read at a start, but a machine may be busy."""

WATCHED_S = 6.0
"""What was loaded before the fault would be shown again within it."""

NORMAL_WITHIN_S = 4.0
"""A second to judge it, what waits meanwhile, and the loads of all that is not in the memory of a process."""

FACTOR = 5.0
"""Without it the database answers what it would have answered: slower, and in time."""

QUICK_S = 0.25
"""Half of the p99 that calls for a further stage is quick, however quick the calm was."""


class CacheDrill:
    """A cache holds copies alone: without it requests take longer, and that is all."""

    needs = "stage 6, with the fleet's own Redis for the cache"

    def refuses(self, topology: Topology) -> str | None:
        """What is lacking where the fleet does not run a shared cache itself."""
        if topology.cache.engine != "redis" or topology.cache.url is not None:
            return "a shared cache that the fleet itself runs: `outgrow grow cache`"
        return None

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """Nothing fails, nobody sees the past, and nobody waits long."""
        yield verdict.reads(history)
        yield verdict.no_write_fails(history)
        yield from nothing_is_lost(history)
        yield verdict.in_time(
            history,
            history.moments("fault", NAME)[-1] + NORMAL_WITHIN_S,
            factor=FACTOR,
            least_s=QUICK_S,
            promise=f"From {NORMAL_WITHIN_S:g} s after the fault on nobody waits long.",
        )


async def all_of_it(scene: Scene) -> list[Note]:
    """The processes of all its nodes. Raises OutgrowError when one does not run."""
    return [each for name in names(scene.topology) for each in await scene.processes(name)]


def filled(scene: Scene) -> Fill:
    """The fault that there is no room in it. Raises what reading the fleet's folder raises."""
    place = State(scene.directory).placement()
    urls = endpoints.read(place.endpoints).cache.urls
    return Fill(NAME, urls, scene.topology.application.name, Path(place.secrets))
