"""Patroni is ready to stop the old primary, and waits for our word (engines/patroni/hand_over.py).

    claim ─► the change is asked for ─► until_awaited ─► writes are held ─► give
                                                └─► or refuse: everything stays as it was

All of it on one connection to DATABASE at the old primary, with whose end the lock ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

from outgrow.engines.patroni.hand_over import HAND_OVER
from outgrow.growth.data import postgres_follower as follower

EVERY_S = 0.005
"""How often it is looked whether Patroni waits."""

_WAITING = """
FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND NOT granted AND (classid::bigint << 32 | objid::bigint) = $1
    AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""


async def claim(connection: Any) -> None:
    """From now on Patroni waits for `give`."""
    await connection.execute("SELECT pg_catalog.pg_advisory_lock($1)", HAND_OVER)


async def until_awaited(connection: Any) -> None:
    """Until it waits."""
    while not await connection.fetchval(f"SELECT count(*) {_WAITING}", HAND_OVER):
        await asyncio.sleep(EVERY_S)


async def give(connection: Any) -> None:
    """It stops the server now, perhaps before that has answered. The lock also goes with the connection."""
    await follower.run_as_last(connection, "SELECT pg_catalog.pg_advisory_unlock($1)", HAND_OVER)


async def refuse(connection: Any, asked: asyncio.Task[str]) -> None:
    """Until `asked`, the change, has been given up. It may have yet to wait for the word."""
    while not asked.done():
        await connection.execute(f"SELECT pg_catalog.pg_cancel_backend(pid) {_WAITING}", HAND_OVER)
        await asyncio.wait((asked,), timeout=EVERY_S)
