"""The Redis of the cache, which all processes share (stage 6).

redis-cache     service   nothing of it is written to the disk: it begins empty, and may vanish at any time
redis-cache-2   service   likewise, and so on: keys are spread over them by the application (runtime/ring.py)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from outgrow import endpoints
from outgrow.engines.base import Placement
from outgrow.engines.redis import client as redis_client
from outgrow.engines.redis.client import Account
from outgrow.engines.redis.redis import PORT, Redis, Settings, user
from outgrow.errors import FleetError
from outgrow.topology.model import Topology

NAME = "redis-cache"
NODE = 251
NUMBERS = (NODE, *range(244, 249))
"""The last parts of their addresses: out of the way of servers that are counted."""

OPERATOR = "outgrow_admin"
OPERATOR_ROLE = "cache-admin"
"""Whose password is among the operator's secrets."""

OPERATOR_COMMANDS = "+flushall +client|kill +info +ping"
COMMANDS = (
    "+get +mget +set +del +exists +rename +hget +hmget +hset +hsetnx +hdel +hincrby "
    "+evalsha +script|load +publish +subscribe +time +ping"
)
"""Those of runtime/cache/shelf.py and its scripts, and no other. HELLO and AUTH need no right."""

Eviction = Literal["lru", "lfu", "random", "fifo"]

POLICIES: dict[Eviction, str] = {
    "lru": "volatile-lru",
    "lfu": "volatile-lfu",
    "random": "volatile-random",
    "fifo": "volatile-ttl",
}
"""maxmemory-policy. Only a key with a time to live may go: what the cache notes about itself has none.

Redis knows no first in, first out. It evicts what expires next, which is that where all live equally long.
"""


class RedisCache(Redis):
    """One server, for the cache of all processes: the first, or one of several."""

    tier = "cache"

    def __init__(self, topology: Topology, placement: Placement, name: str = NAME) -> None:
        super().__init__(topology, placement)
        self.last = name

    def settings(self) -> Settings:
        """As outgrow.toml says it."""
        cache = self._topology.cache
        return settings(cache.memory_mb, cache.eviction)

    def users(self) -> str:
        """The application, and the fleet."""
        password = endpoints.read_secrets(self._place.secrets).passwords[self.tier]
        operator = endpoints.read_secrets(self._place.operator_secrets).passwords[OPERATOR_ROLE]
        return users(self._topology.application.name, password, operator)


def names(topology: Topology) -> list[str]:
    """Of the nodes that this topology has of the cache."""
    return [NAME, *(f"{NAME}-{number}" for number in range(2, topology.cache.nodes + 1))]


def servers(topology: Topology, place: Placement) -> list[RedisCache]:
    """All nodes; the place's host is that of the first. Raises EngineMissing."""
    hosts = [place.host, *(place.neighbour(number) for number in NUMBERS[1:])]
    return [
        RedisCache(topology, place._replace(host=host), name)
        for name, host in zip(names(topology), hosts, strict=False)
    ]


def needs(topology: Topology) -> list[tuple[int, int]]:
    """Numbers of their addresses, and the port that each must have free (State.free_host)."""
    return [(number, PORT) for number in NUMBERS[: topology.cache.nodes]]


def settings(memory_mb: int, eviction: Eviction) -> Settings:
    """What is lost was only a copy, so nothing waits for the disk."""
    return {
        "appendonly": "no",
        "maxmemory": f"{memory_mb}mb",
        "maxmemory-policy": POLICIES[eviction],
        # To free a large value takes milliseconds, in which nobody else is served.
        "lazyfree-lazy-eviction": "yes",
        "lazyfree-lazy-expire": "yes",
    }


def users(name: str, password: str, operator_password: str) -> str:
    """The application's, with the least that it must be able to do, and the fleet's, which may empty it."""
    application = f"~outgrow:{name}:cache:* &outgrow:{name}:cache {COMMANDS}"
    return (
        "user default off resetpass resetkeys resetchannels -@all\n"
        + user(OPERATOR, operator_password, OPERATOR_COMMANDS)
        + user(name, password, application)
    )


class Figures(NamedTuple):
    """How it stands: bytes, keys, and how many keys had to go to make room since it began."""

    memory: int
    memory_max: int
    keys: int
    evicted: int


def figures(url: str, place: Placement) -> Figures:
    """As it says it. Raises FleetError when it does not answer."""
    said = _ask(url, place, "INFO").decode()
    values = dict(re.findall(r"^(\w+):(?:keys=)?(\d+)", said, re.MULTILINE))
    names = ("used_memory", "maxmemory", "db0", "evicted_keys")  # an empty one says nothing of db0
    return Figures(*(int(values.get(name, 0)) for name in names))


def together(urls: Iterable[str], place: Placement) -> Figures:
    """Of all nodes that answer. Raises FleetError when none does."""
    known, trouble = [], None
    for url in urls:
        try:
            known.append(figures(url, place))
        except FleetError as error:
            trouble = error
    if trouble is not None and not known:
        raise trouble
    return Figures(*map(sum, zip(*known, strict=True)))


def empty(url: str, place: Placement) -> None:
    """Remove everything that is in it, and that processes have taken from it into their memory.

    A process whose connection ends trusts nothing that it has. Raises FleetError when it does not answer.
    """
    _ask(url, place, "FLUSHALL")
    _ask(url, place, f"CLIENT KILL USER {Account.of(url, '').user}")


def _ask(url: str, place: Placement, command: str) -> bytes:
    password = endpoints.read_secrets(place.operator_secrets).passwords.get(OPERATOR_ROLE, "")
    try:
        said = redis_client.ask(Account.of(url, password)._replace(user=OPERATOR), command)
    except OSError as error:
        hint = f"`outgrow logs {NAME}` may say why"
        raise FleetError(f"{NAME} does not answer: {error}", hint=hint) from error
    if said.startswith(b"-"):
        raise FleetError(f"{NAME} refuses {command}: {said.decode(errors='replace').strip()}")
    return said
