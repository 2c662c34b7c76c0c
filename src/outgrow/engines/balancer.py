"""What every load balancer of a fleet is told: the servers that it chooses from."""

from __future__ import annotations

from typing import NamedTuple

from outgrow.workload import Address


class Server(NamedTuple):
    """One application server. `weight` is its share next to the others of its pool; draining, it gets
    no new request and finishes those that it has."""

    name: str
    address: Address
    pool: str = "app"
    weight: int = 1
    draining: bool = False
