"""Messages on their way into the outbox table, in the transaction that they belong to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from outgrow.runtime.database.schema import outbox
from outgrow.runtime.ids import Ids
from outgrow.runtime.scope import Message

PUT_ONCE = {
    "sqlite": insert_sqlite(outbox).on_conflict_do_nothing(),
    "postgres": insert_postgres(outbox).on_conflict_do_nothing(),
}


class Staging:
    """Turns messages into rows. `headers` gives the JSON of what travels with them: bookmark, trace."""

    __slots__ = ("_headers", "_ids")

    def __init__(self, ids: Ids, headers: Callable[[], str]) -> None:
        self._ids = ids
        self._headers = headers

    def rows(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """One row a message, all with the same headers."""
        now = int(time.time() * 1000)
        headers = self._headers()
        return [
            {
                "id": self._ids.next(),
                "topic": message.topic,
                "body": message.body,
                "headers": headers,
                "dedupe": message.key,
                "available_at": now + int(message.delay_s * 1000),
                "created_at": now,
            }
            for message in messages
        ]
