"""Looking at one node of a database: again and again, whatever comes back, on either event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from outgrow.errors import Unavailable
from outgrow.runtime.database.routing import Seen, Told
from outgrow.runtime.database.watch import Watch

TOLD = Told(standby=True, timeline=1, lsn=5, run=7, system=1)


class Node:
    """Fails first, in its own way."""

    name = "replica"

    def __init__(self, failures: list[Exception]) -> None:
        self._failures = failures

    async def look(self, *, ends_of: int) -> Told:
        if self._failures:
            raise self._failures.pop()
        return TOLD

    async def look_away(self) -> None:
        """There is no connection."""

    def abandon(self) -> None:
        """Nothing is under way."""


class Heard:
    """What the watch has said."""

    ends_of = 0

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def note(self, name: str, told: Told, at: float) -> Seen:
        return Seen(name, "replica", told.timeline, told.lsn, told.run, at)

    def fail(self, name: str, reason: str, *, lost: bool) -> None:
        self.reasons.append(reason)

    def alarm(self) -> None:
        """It was slow."""

    def alarmed(self) -> bool:
        return True


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_it_goes_on_after_whatever_was_raised(run: Callable[..., None]) -> None:
    """asyncpg raises InternalClientError when a server dies in mid-message, which is no PostgresError."""

    async def scene() -> None:
        heard = Heard()
        failures = [RuntimeError("cannot switch to state 12"), Unavailable("refused"), TimeoutError()]
        watch = Watch(Node(failures), heard)
        try:
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await watch.fresh(5.0)
            assert (await watch.fresh(5.0)).lsn == TOLD.lsn
            assert heard.reasons == [
                "it does not answer",
                "refused",
                "RuntimeError: cannot switch to state 12",
            ]
        finally:
            await watch.close()

    run(scene())


async def test_who_still_waits_when_it_ends_is_told() -> None:
    watch = Watch(Node([]), Heard())
    asking = asyncio.ensure_future(watch.fresh(5.0))
    await asyncio.sleep(0)
    await watch.close()
    with pytest.raises(Unavailable, match="nobody looks"):
        await asking
