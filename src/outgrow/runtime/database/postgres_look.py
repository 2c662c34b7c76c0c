"""What a PostgreSQL server says of itself: its role, its timeline, how far it has come.

A plain role may ask for nearly all of it. A replica's present timeline, and where earlier timelines ended,
are told by two functions in the schema `outgrow` (engines/postgres/setup.py). Where they are missing,
pg_monitor does for the first, else the timeline is that of the replica's last restart point; and for the
second this process has to see a promotion itself. What is not known is taken for the worse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from outgrow.errors import Unavailable
from outgrow.runtime.database import postgres_errors
from outgrow.runtime.database.postgres_connection import RUN, TIMELINE, WRITTEN, run_of
from outgrow.runtime.database.routing import Told

if TYPE_CHECKING:
    from outgrow import endpoints

CONNECT_TIMEOUT_S = 1.0

_RECEIVING = "(SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)"
_HISTORY = "SELECT outgrow.history($1)"

_LOOK = (
    "SELECT standby, "
    "CASE WHEN standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE ({written}) END - '0/0' AS lsn, "
    "CASE WHEN standby THEN GREATEST({receiving}, "
    "(SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()), "
    "(SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())) "
    "ELSE {timeline} END AS timeline, "
    "CASE WHEN NOT standby THEN pg_catalog.pg_last_wal_replay_lsn() - '0/0' END AS forked_at, "
    "{run} AS run, (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system "
    "FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) AS role"
)
_MAY = (
    "SELECT has_function_privilege(to_regprocedure('outgrow.receiving()'), 'EXECUTE'), "
    "coalesce(has_function_privilege(to_regprocedure('outgrow.history(integer)'), 'EXECUTE'), false)"
)


class Look:
    """A connection for looking, and nothing else."""

    def __init__(self, node: endpoints.Node, password: str | None) -> None:
        self._node = node
        self._password = password
        self._raw: Any = None
        self._prepared: Any = None
        self._sql = ""
        self._tells_history = False

    async def look(self, ends_of: int) -> Told:
        """What it says; with `ends`, unless its timeline is `ends_of`. Raises Unavailable."""
        try:
            if self._raw is None or self._raw.is_closed():
                await self._connect()
            row = await self._ask()
            ends = await self._ends(row["timeline"]) if row["timeline"] not in (1, ends_of) else {}
        except (asyncpg.PostgresError, *postgres_errors.CONNECTION_LOST, TimeoutError) as error:
            self.close()
            raise Unavailable(str(error) or type(error).__name__, node=self._node.name) from error
        except BaseException:
            self.close()
            raise
        forked_at = None if row["forked_at"] is None else int(row["forked_at"])
        lsn, run = int(row["lsn"] or 0), run_of(row["run"])
        return Told(row["standby"], row["timeline"], lsn, run, row["system"], forked_at, ends)

    def close(self) -> None:
        """Hang up."""
        raw, self._raw, self._prepared = self._raw, None, None
        if raw is not None:
            raw.terminate()

    async def _connect(self) -> None:
        self.close()
        self._raw = await asyncpg.connect(
            self._node.url,
            password=self._password,
            timeout=CONNECT_TIMEOUT_S,
            statement_cache_size=0,
            server_settings={"application_name": "outgrow look"},
        )
        async with self._raw.transaction(readonly=True):
            may_receive, self._tells_history = await self._raw.fetchrow(_MAY)
        receiving = "outgrow.receiving()" if may_receive else _RECEIVING
        self._sql = _LOOK.format(receiving=receiving, timeline=TIMELINE, written=WRITTEN, run=RUN)
        if not self._node.pooled:
            self._prepared = await self._raw.prepare(self._sql)

    async def _ask(self) -> Any:
        if not self._node.pooled:
            return await self._prepared.fetchrow()
        async with self._raw.transaction(readonly=True):  # else each message may go to another connection
            return await self._raw.fetchrow(self._sql)

    async def _ends(self, timeline: int) -> dict[int, int]:
        if not self._tells_history:
            return {}
        return ends_in(await self._raw.fetchval(_HISTORY, timeline) or "")


def ends_in(history: str) -> dict[int, int]:
    """Timeline -> LSN, of a file like pg_wal/00000003.history. Source: PostgreSQL's timeline.c."""
    ends = {}
    for line in history.splitlines():
        words = line.split("#", 1)[0].split(None, 2)
        if len(words) >= 2:
            high, low = words[1].split("/")
            ends[int(words[0])] = int(high, 16) << 32 | int(low, 16)
    return ends
