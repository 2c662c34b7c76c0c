"""How fast the data is copied and compared: as fast as the application allows, which needs the same machine.

after each page:  as long a rest as the work took ─► while requests wait: longer ─► the next page
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from outgrow.cluster.processes import Processes
from outgrow.errors import FleetError

REST_MAX_S = 0.5
"""After a page that took long, since a disk was slow."""

CALM_S = 0.010
"""A process that answers later than that has requests in line before the question."""

WRITING_CALM = 4
"""More write blocks than that at once wait for each other, or for the disk."""

BACK_OFF_S = 0.02
PATIENCE_S = 2.0
"""For one page: an application that is always busy is moved too, slowly."""

ANSWER_WITHIN_S = 1.0


class Pace:
    """Of work beside the application whose processes listen in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._processes = Processes(folder)

    async def __aenter__(self) -> Self:
        await self._processes.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._processes.__aexit__(kind, error, trace)

    async def rest(self, worked_s: float) -> None:
        """After so much work."""
        await asyncio.sleep(min(worked_s, REST_MAX_S))
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and await self._requests_wait():
            await asyncio.sleep(BACK_OFF_S)

    async def _requests_wait(self) -> bool:
        began = time.monotonic()
        try:
            answers = await self._processes.state(within_s=ANSWER_WITHIN_S)
        except FleetError:
            return True
        late = time.monotonic() - began > CALM_S
        return late or any(answer.writing > WRITING_CALM for answer in answers)
