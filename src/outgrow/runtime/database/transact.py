"""A transaction that is repeated where that is safe: og.db.transact.

rolled back for certain (Conflict, or lost before COMMIT)  ─► again
outcome unknown (OutcomeUnknown)                           ─► again only with an idempotency key:
    key there already?  ─ yes ─► it had been committed: its result      (table outgrow_done)
                        ─ no  ─► function, then the key, in one transaction
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from outgrow.errors import Conflict, Misuse, OutcomeUnknown, Unavailable, UniqueViolation
from outgrow.runtime.database.schema import done
from outgrow.runtime.database.write import Write

T = TypeVar("T")

BACK_OFF_S = (0.01, 1.0)
KEPT_MS = 86_400_000
"""How long a key is remembered at least: a client that repeats a request does so within a day."""

CLEANED_EACH = 200
"""One of so many transactions removes the keys that are older."""

KEY_LENGTH_MAX = 255

_FIND = select(done.c.result).where(done.c.key == bindparam("wanted"))
_KEEP = insert(done)
_CLEAN = delete(done).where(done.c.at < bindparam("before"))


async def transact(
    begin: Callable[[], Write],
    function: Callable[[Write], Awaitable[T]],
    *,
    attempts: int,
    idempotency_key: str | None,
) -> T:
    """Run `function` in a write block that `begin` makes, at most so many times. See Database.transact."""
    if idempotency_key is not None and not 0 < len(idempotency_key) <= KEY_LENGTH_MAX:
        raise Misuse(
            f"an idempotency key has 1 to {KEY_LENGTH_MAX} characters, not {len(idempotency_key)}",
            hint="the client makes one for what it wants once, for example a UUID",
        )
    shortest, longest = BACK_OFF_S
    for attempt in range(1, attempts + 1):
        try:
            async with begin() as tx:
                if idempotency_key is None:
                    return await function(tx)
                return await _once(tx, function, idempotency_key)
        except (Conflict, Unavailable) as error:
            unknown = isinstance(error, OutcomeUnknown) and idempotency_key is None
            if unknown or attempt == attempts:
                raise
        await asyncio.sleep(random.uniform(0.5, 1.0) * min(longest, shortest * 2 ** (attempt - 1)))
    raise Misuse(f"attempts={attempts} is less than one", hint="write attempts=1 to try once")


async def _once(tx: Write, function: Callable[[Write], Awaitable[T]], key: str) -> T:
    found = await tx.one(_FIND, wanted=key)
    if found is not None:
        result: T = msgspec.json.decode(found.result)
        return result
    result = await function(tx)
    await _keep(tx, key, _as_json(result))
    return result


async def _keep(tx: Write, key: str, result: str) -> None:
    now = int(time.time() * 1000)
    try:
        await tx.execute(_KEEP, key=key, at=now, result=result)
    except UniqueViolation as error:
        # Another one with this key has been faster: at the next attempt its result is found.
        raise Conflict(f"idempotency key {key!r} was used at the same time", node=error.node) from error
    if random.randrange(CLEANED_EACH) == 0:
        await tx.execute(_CLEAN, before=now - KEPT_MS)


def _as_json(result: Any) -> str:
    try:
        return msgspec.json.encode(result).decode()
    except TypeError as error:
        raise Misuse(
            f"with an idempotency key the result is kept as JSON: {error}",
            hint="return an id, a text, a list or a dict of such",
        ) from error
