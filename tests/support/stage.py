"""Registers on a replicated database, an application open on it, and sessions at work while things fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from outgrow import Outgrow
from outgrow.chaos.operations import Operation
from outgrow.endpoints import Cache, Database, Endpoints, Secrets, Shard
from tests.support.cache import CacheServer
from tests.support.histories import Mix, Player
from tests.support.registers import Cached, InProcess, create, last
from tests.support.troubles import Troubles

AT_ONCE = 12
CALM_S = 0.7
OPERATIONS_MIN = 2_000


class Stage:
    """A database with registers on the cluster, and an application that is open on it."""

    def __init__(
        self,
        troubles: Troubles,
        replication: Literal["async", "semi-sync"] = "async",
        cache: CacheServer | None = None,
    ) -> None:
        self.troubles = troubles
        self.others: list[Outgrow] = []
        self.cluster = troubles.cluster
        self.database = troubles.create_database()
        asyncio.run(create(self.url))
        troubles.settle()
        nodes = self.cluster.nodes(self.url)
        settings = Database(
            "postgres", (Shard("0", nodes),), replication=replication, statement_timeout_s=5.0
        )
        document = Endpoints(application="registers", stage="replication", database=settings)
        passwords = {}
        if cache is not None:
            document = replace(document, cache=Cache("redis", cache.url))
            passwords["cache"] = cache.password
        self._document, self._secrets = document, Secrets(application="00" * 32, passwords=passwords)
        self.og = self.another()

    def another(self) -> Outgrow:
        """Another process of the same application, as it were."""
        return Outgrow(self._document, self._secrets)

    @property
    def url(self) -> str:
        """At whatever is the primary now."""
        return self.cluster.primary.url(self.database)

    def leave(self) -> None:
        """Without its data a new replica is made faster."""
        self.cluster.primary.execute(f"DROP DATABASE {self.database} WITH (FORCE)")

    async def last(self) -> list[Operation]:
        """What the primary has in the end."""
        return await last(self.url)

    def player(self, level: str, mix: Mix = Mix()) -> Player:  # noqa: B008, it is frozen
        """Sessions that read at this level, by the cache where several processes share one."""
        client = Cached([self.og, *self.others], level) if self.others else InProcess(self.og, level)
        return Player(client, mix)

    async def work(self, player: Player, until: Callable[[], bool]) -> None:
        """Let them work, and every message be heard."""
        await player.play(at_once=AT_ONCE, until=until)
        await self.og.queue.drain()

    async def play(
        self,
        level: str,
        trouble: Callable[[Player], object] = lambda player: None,
        mix: Mix = Mix(),  # noqa: B008, it is frozen
    ) -> Player:
        """At work before, during and after the trouble (in a thread), until there was enough."""
        player, ended = self.player(level, mix), False

        async def disturb() -> None:
            nonlocal ended
            try:
                await asyncio.sleep(CALM_S)
                await asyncio.to_thread(trouble, player)
                await asyncio.sleep(CALM_S)
            finally:
                ended = True

        def enough() -> bool:
            return ended and len(player.operations) >= OPERATIONS_MIN

        await asyncio.gather(self.work(player, enough), disturb())
        return player
