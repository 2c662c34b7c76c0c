"""A node that leaves an address which others serve too: first the new connections go to those alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from outgrow.supervisor import steering
from outgrow.workload import Address

if TYPE_CHECKING:
    from outgrow.supervisor.node import Node

SETTLE_S = 0.05
"""For a connection whose first packet was on its way to the old socket."""

ACCEPTED_WITHIN_S = 2.0


class Member(NamedTuple):
    """The sockets of one node at an address. In a group they stand in the order in which they came."""

    name: str
    since: float
    sockets: int


async def leave(nodes: Mapping[str, Node], names: Collection[str]) -> None:
    """Whoever connects from now on gets another node than these; what waits for them they still accept."""
    going = [nodes[name] for name in names if name in nodes]
    addresses = {each for node in going for each in (*node.workload.listen, *node.workload.claims)}
    left = []
    for address in addresses:
        stays = among(group(nodes, address), names)
        ours = dict(_sockets(nodes, address))
        if stays is not None and ours:
            steering.steer(next(iter(ours.values())), *stays)
            left += [each for name, each in ours.items() if name in names]
    if addresses:
        await _until_accepted(left)


def keep(nodes: Mapping[str, Node], names: Collection[str]) -> None:
    """Who joins these nodes' addresses from now on gets no connection yet; `settled` gives it its share."""
    for address in {each for name in names for each in nodes[name].workload.listen}:
        for _, ours in _sockets(nodes, address):
            steering.steer(ours, 0, sum(member.sockets for member in group(nodes, address)))
            break


def settled(nodes: Mapping[str, Node], address: Address) -> None:
    """Those who had to leave have closed: the kernel spreads connections over all that are left."""
    for _, member in _sockets(nodes, address):
        steering.spread(member)
        return


def group(nodes: Mapping[str, Node], address: Address) -> list[Member]:
    """Who listens at this address, in the order of the kernel's group."""
    ours = {name: nodes[name].opened for name, _ in _sockets(nodes, address)}
    others = [
        (name, node.spawned)
        for name, node in nodes.items()
        if address in node.workload.claims and node.pid is not None
    ]
    theirs = (steering.listeners(address) - len(ours)) // len(others) if others else 0
    found = [Member(name, since, 1) for name, since in ours.items()]
    found += [Member(name, since, theirs) for name, since in others if theirs > 0]
    return sorted(found, key=lambda member: member.since)


def among(members: list[Member], going: Collection[str]) -> tuple[int, int] | None:
    """First place and number of the sockets that stay; None when none goes, none stays, or with gaps."""
    places: list[int] = []
    place = 0
    for member in members:
        if member.name not in going:
            places += range(place, place + member.sockets)
        place += member.sockets
    if not places or len(places) == place or places[-1] - places[0] >= len(places):
        return None
    return places[0], len(places)


def _sockets(nodes: Mapping[str, Node], address: Address) -> Iterator[tuple[str, socket.socket]]:
    for name, node in nodes.items():
        if node.sockets and address in node.workload.listen:
            ours = node.sockets[node.workload.listen.index(address)]
            if steering.listens(ours):
                yield name, ours


async def _until_accepted(sockets: Collection[socket.socket]) -> None:
    deadline = asyncio.get_running_loop().time() + ACCEPTED_WITHIN_S
    await asyncio.sleep(SETTLE_S)
    while steering.waiting(sockets) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
