"""What the primary alone knows of its replicas: how much of the log it keeps for each, and who waits for one.

A commit does not wait for ever for a replica that does not confirm it. PostgreSQL would let it, whatever
statement_timeout says. Cancelled, it would look like success; so its connection is ended, and its client is
told that it does not know. The commit itself holds at the primary, and reaches a replica when one is back.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import asyncpg

CONNECT_WITHIN_S = 2.0
ANSWER_WITHIN_S = 2.0

_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last is what a server that dies in mid-message leaves behind; it is neither of the others."""

_WAITING = """
SELECT pid, backend_start, query_start FROM pg_stat_activity
WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'
"""

_KEPT = """
SELECT slot_name, (pg_current_wal_insert_lsn() - restart_lsn)::bigint AS kept FROM pg_replication_slots
WHERE restart_lsn IS NOT NULL
"""


class Primary:
    """Looked at again and again. A commit may wait for `limit_s`, or for as long as it likes (None)."""

    def __init__(self, password: str, limit_s: float | None) -> None:
        self._password = password
        self._limit_s = limit_s
        self._seen: dict[tuple[Any, ...], float] = {}
        self.kept: dict[str, int] = {}
        """Bytes of the log, by slot."""
        self._url = ""
        self._connection: Any = None

    async def look(self, url: str) -> int:
        """End waits that have lasted too long; returns how many. A server that does not answer has none."""
        try:
            connection = await self._connected(url)
            self.kept = dict(await connection.fetch(_KEPT, timeout=ANSWER_WITHIN_S))
            return await self._end_waits(connection, self._limit_s) if self._limit_s is not None else 0
        except (OSError, TimeoutError, *_DRIVER):
            await self.close()
            return 0

    async def _end_waits(self, connection: Any, limit_s: float) -> int:
        rows = await connection.fetch(_WAITING, timeout=ANSWER_WITHIN_S)
        now = time.monotonic()
        self._seen = {tuple(row): self._seen.get(tuple(row), now) for row in rows}
        late = [key[0] for key, since in self._seen.items() if now - since > limit_s]
        if late:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS late (pid)", late
            )
        return len(late)

    async def _connected(self, url: str) -> Any:
        if self._connection is None or self._connection.is_closed() or url != self._url:
            await self.close()
            self._connection = await asyncpg.connect(url, password=self._password, timeout=CONNECT_WITHIN_S)
            self._url = url
        return self._connection

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection, self._seen, self.kept = self._connection, None, {}, {}
        if connection is not None:
            with contextlib.suppress(OSError, TimeoutError, *_DRIVER):
                connection.terminate()
