"""The copy rests as long as it works, and longer while requests wait; but never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from outgrow.growth import pace
from outgrow.growth.pace import Pace
from outgrow.runtime.control import Control
from outgrow.runtime.database.gate import Gate


class Application:
    """A process that listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = Gate(10.0)
        self.control = Control(folder, self.gate, epoch=lambda: 1, reload=self._reload)

    async def _reload(self) -> None:
        return

    async def write(self, blocks: int) -> None:
        """So many write blocks are open from now on."""
        for _ in range(blocks):
            await self.gate.enter()

    def written(self, blocks: int) -> None:
        """They have ended."""
        for _ in range(blocks):
            self.gate.leave()


@pytest.fixture
async def application(tmp_path: Path) -> AsyncIterator[Application]:
    made = Application(tmp_path)
    await made.control.open()
    yield made
    await made.control.close()


async def rested(folder: Path, worked_s: float) -> float:
    began = time.monotonic()
    async with Pace(folder) as made:
        await made.rest(worked_s)
    return time.monotonic() - began


async def test_as_long_as_it_worked(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "CALM_S", 5.0)  # whatever else the machine does
    assert 0.1 <= await rested(application.folder, 0.1) < pace.PATIENCE_S
    assert await rested(application.folder, 60.0) < pace.REST_MAX_S + pace.PATIENCE_S


async def test_until_the_writes_in_line_are_through(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_S", 60.0)
    monkeypatch.setattr(pace, "CALM_S", 5.0)
    await application.write(pace.WRITING_CALM + 1)
    resting = asyncio.create_task(rested(application.folder, 0.0))
    await asyncio.sleep(0.2)
    assert not resting.done()
    application.written(1)
    await asyncio.wait_for(resting, 10)
    application.written(pace.WRITING_CALM)


async def test_until_a_busy_process_answers_at_once(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_S", 60.0)
    monkeypatch.setattr(pace, "CALM_S", 0.0)  # nothing is as fast
    resting = asyncio.create_task(rested(application.folder, 0.0))
    await asyncio.sleep(0.2)
    assert not resting.done()
    monkeypatch.setattr(pace, "CALM_S", 5.0)
    await asyncio.wait_for(resting, 10)


async def test_one_that_is_always_busy_is_moved_too(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PATIENCE_S", 0.2)
    await application.write(pace.WRITING_CALM + 1)
    assert 0.2 <= await rested(application.folder, 0.0) < 5
    application.written(pace.WRITING_CALM + 1)


async def test_nobody_is_there(tmp_path: Path) -> None:
    assert await rested(tmp_path, 0.0) < pace.PATIENCE_S
