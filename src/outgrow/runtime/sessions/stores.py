"""Which store the settings ask for. Each is loaded only where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime.sessions.store import Movable


def open_store(
    settings: endpoints.SessionStore,
    *,
    database: Any,
    table: Any,
    passwords: Mapping[str, str],
    application: str,
) -> Movable:
    """The store that is named, not opened yet. Raises Misuse when its driver is missing."""
    if settings.engine == "memory":
        from outgrow.runtime.sessions.memory import MemoryStore

        return MemoryStore()
    if settings.engine == "database":
        from outgrow.runtime.sessions.database import DatabaseStore

        return DatabaseStore(database, table)
    try:
        from outgrow.runtime.sessions.redis import RedisStore
    except ModuleNotFoundError as error:
        raise Misuse("sessions in Redis need a driver", hint="pip install 'outgrow[redis]'") from error
    if settings.url is None:
        raise Misuse(
            "sessions are to be in Redis, and no url says where it is",
            hint='`outgrow up` starts one, or write url = "redis://..." under [sessions]',
        )
    return RedisStore(settings.url, passwords.get("sessions"), application)
