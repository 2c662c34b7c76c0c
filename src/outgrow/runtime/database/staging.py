"""Messages on their way into the outbox table, in the transaction that they belong to."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, text

from outgrow.runtime.database.schema import outbox
from outgrow.runtime.ids import Ids
from outgrow.runtime.scope import Message

_WAITING = {
    "index_elements": [outbox.c.topic, outbox.c.dedupe],
    "index_where": text("dedupe is not null and state = 'ready'"),
}


def _put_once(insert: Any, earlier: Any) -> Any:
    """A message whose key waits already becomes one with it.

    By an update, which holds the waiting row until this transaction ends: else a worker could claim
    it now, run before our commit, and nobody would ever see to what we have written.
    """
    both = {
        "body": insert.excluded.body,
        "headers": insert.excluded.headers,
        "available_at": earlier(outbox.c.available_at, insert.excluded.available_at),
    }
    return insert.on_conflict_do_update(**_WAITING, set_=both)


@functools.cache
def put_once(engine: str) -> Any:
    """The statement for this kind of database. Only its own dialect is loaded: it takes 50 ms."""
    if engine == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as insert_sqlite

        return _put_once(insert_sqlite(outbox), func.min)
    from sqlalchemy.dialects.postgresql import insert as insert_postgres

    return _put_once(insert_postgres(outbox), func.least)


class Staging:
    """Turns messages into rows. `headers` gives the JSON of what travels with them: bookmark, trace."""

    __slots__ = ("_headers", "_ids")

    def __init__(self, ids: Ids, headers: Callable[[], str]) -> None:
        self._ids = ids
        self._headers = headers

    def rows(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """One row a message, all with the same headers; by key, so that two transactions cannot deadlock."""
        now = int(time.time() * 1000)
        headers = self._headers()
        rows = [
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
        return sorted(rows, key=_key)


def _key(row: dict[str, Any]) -> str:
    return row["dedupe"] or ""
