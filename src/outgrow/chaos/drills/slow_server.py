"""One server is much slower than the others: round robin against least response time."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from outgrow.chaos import verdict
from outgrow.chaos.drills.drill import nothing_is_lost, several_servers
from outgrow.chaos.faults.slow import Slow
from outgrow.chaos.history import History
from outgrow.chaos.scene import Scene
from outgrow.chaos.verdict import Finding
from outgrow.topology import Topology

SHARE = 0.2
MEASURED_S = 12.0
LEARNT_WITHIN_S = 5.0
BETTER = 1.5
ALGORITHMS = ("round-robin", "least-response-time")


class SlowServer:
    """The same slow server twice: once its share of requests is fixed, once it follows from its latency."""

    name = "slow-server"
    shows = "one server is five times slower than the others, as on a machine with a noisy neighbour"
    needs = "stage 4 and at least two application servers"
    does = "gives one server a fifth of its time, first with round robin, then with least response time"

    def refuses(self, topology: Topology) -> str | None:
        return several_servers(topology)

    async def run(self, scene: Scene) -> None:
        """Measure p99 with both algorithms."""
        server = (await scene.servers())[-1]
        async with scene.changed():
            await scene.become(with_algorithm(scene.topology, ALGORITHMS[0]))
            async with scene.fault(Slow(server, await scene.processes(server), SHARE), server):
                for algorithm in ALGORITHMS:
                    await scene.become(with_algorithm(scene.topology, algorithm))
                    await scene.rest(LEARNT_WITHIN_S)
                    scene.watch.note("note", "balancer", f"{algorithm} begins")
                    await scene.rest(MEASURED_S)
                    scene.watch.note("note", "balancer", f"{algorithm} ends")

    def verdict(self, history: History, topology: Topology) -> Iterator[Finding]:
        """p99 with one against p99 with the other; nothing fails with either."""
        yield verdict.better(
            history,
            *(history.stretch(each) for each in ALGORITHMS),
            times=BETTER,
            promise=f"Least response time: p99 is at least {BETTER:g} times better than round robin's.",
        )
        yield verdict.reads(history)
        yield verdict.no_write_fails(history)
        yield from nothing_is_lost(history)


def with_algorithm(topology: Topology, algorithm: str) -> Topology:
    """The same topology, choosing servers like that."""
    return replace(topology, balancer=replace(topology.balancer, algorithm=algorithm))
