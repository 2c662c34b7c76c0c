"""Write-behind: kill -9 at every step, in several processes at once, loses nothing and takes nothing back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from outgrow.runtime.application import Outgrow
from outgrow.runtime.database.migrate import migrate
from tests.support.behind import ALL, CREATE, KEYS, SETTLED, counts, outgrow

ROOT = Path(__file__).parents[2]
STEPS = ("appended", "taken", "stored", "committed", "")
ENOUGH = 20
"""So many rounds were acknowledged when the one is killed that does not kill itself."""


class Worker:
    """A process that puts until it dies, and the last round that was acknowledged."""

    def __init__(self, number: int, step: str) -> None:
        self.number, self.step = number, step
        self.acknowledged = 0

    async def run(self, url: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.behind", url, str(self.number), self.step,
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self.acknowledged = int(line)
                if not self.step and self.acknowledged == ENOUGH:
                    process.kill()
            assert await process.wait() == -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def watch(og: Outgrow) -> None:
    """What is stored only ever rises."""
    last: dict[str, int] = {}
    while True:
        async with og.db.read() as tx:
            now = {row.name: row.n for row in await tx.all(ALL)}
        for key, n in last.items():
            assert now[key] >= n, key
        last = now
        await asyncio.sleep(0.005)


async def test_nothing_acknowledged_is_lost_and_nothing_goes_back(database_url: str) -> None:
    await migrate(database_url, None)
    async with (og := outgrow(database_url)):
        async with og.db.write() as tx:
            await tx.execute(CREATE)
        strategy = counts(og)
        workers = [Worker(number, step) for number, step in enumerate(STEPS)]
        watching = asyncio.create_task(watch(og))
        async with asyncio.timeout(80):
            await asyncio.gather(*(worker.run(database_url) for worker in workers))
        og.cache.clear()  # what others put a process alone does not hear
        shown = {
            f"{worker.number}.{key}": await strategy.get(f"{worker.number}.{key}")
            for worker in workers
            for key in range(KEYS)
        }
        for worker in workers:
            assert worker.acknowledged >= SETTLED, worker.step
            for key in range(KEYS):  # the round of its death may have been kept in part
                n = shown[f"{worker.number}.{key}"]
                assert worker.acknowledged <= n <= worker.acknowledged + 1, worker.step
        await strategy.flush()
        async with og.db.read() as tx:
            assert {row.name: row.n for row in await tx.all(ALL)} == shown
        assert not watching.done()
        watching.cancel()
