"""Stages 2, 3 and 4 to each other, live: what stands before the database changes, and no data moves.

    servers start ─► balancer starts on the same address ─► new connections go to it ─► the old owner drains

The fleet does it in one turn that it can repeat (cluster/front.py), in both directions. So there is no
decisive step: until the last line is written, the way back is the same turn to the topology before.
"""

from __future__ import annotations

from typing import ClassVar

from outgrow.cluster import control
from outgrow.cluster.control import Request
from outgrow.errors import FleetError
from outgrow.growth import settings
from outgrow.growth.step import Context, Step
from outgrow.topology import Topology


class ChangeOfFront:
    """A change of servers and balancers. A subclass says which."""

    name: ClassVar[str]
    says: ClassVar[str]

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return (
            Step("front", "servers, balancer, the address", self.change, undo=self.change_back, lasting=True),
            Step("settle", "write outgrow.toml", self.settle),
        )

    async def change(self, context: Context) -> None:
        """The fleet becomes the topology after. It goes on with that by itself if nobody waits for it."""
        await become(context, context.after)

    async def change_back(self, context: Context) -> None:
        """And the topology before."""
        await become(context, context.before)

    async def settle(self, context: Context) -> None:
        """What `outgrow up` starts from now on."""
        settings.settle(context.directory, context.after)


class Balance(ChangeOfFront):
    """To a further stage."""

    name = "balance"
    says = "puts servers behind a balancer"

    def fits(self, before: Topology, after: Topology) -> bool:
        """From one server, or from a balancer to another kind of it."""
        return _fits(before, after) and bool(after.balancer.engine)


class Unbalance(ChangeOfFront):
    """To an earlier one, where a single server has the address again."""

    name = "unbalance"
    says = "leaves one server, without a balancer"

    def fits(self, before: Topology, after: Topology) -> bool:
        """To one server."""
        return _fits(before, after) and not after.balancer.engine


def _fits(before: Topology, after: Topology) -> bool:
    same = before.database == after.database and before.sessions == after.sessions
    return (
        same
        and before.cache == after.cache
        and after.database.engine == "postgres"
        and bool(before.balancer.engine or after.balancer.engine)
    )


async def become(context: Context, topology: Topology) -> None:
    """Have the fleet run what stands before the database. Raises FleetError, and what the fleet raises."""
    await control.change(
        context.directory,
        Request("become", topology=topology),
        tell=lambda change: context.says(f"{change.node} {change.text or change.state}"),
    )
    published = context.state.published()
    if published is None or published.stage != topology.stage:
        raise FleetError(f"the fleet has not become stage {topology.stage}")
