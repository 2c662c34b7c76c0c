"""Open-loop load on a fleet from a thread of its own: requests leave when they are due, answered or not."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from types import TracebackType

import msgspec

from outgrow.load.client import Answer, Failure
from outgrow.workload import Address
from tests.support.balancing import Load, request
from tests.support.fleets import RunningFleet, wait_until


class OpenLoad:
    """`rate` requests a second on kept connections, and half as many each on one of its own.

    Every fourth is a write. Whatever is not answered with success is in `failed`.
    """

    def __init__(self, fleet: RunningFleet, *, rate: float = 80.0) -> None:
        self.failed: Counter[str] = Counter()
        self.written: dict[str, str] = {}
        self.done = 0
        self._rate = rate
        self._address = Address("127.0.0.1", fleet.port)
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> OpenLoad:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int = 60) -> None:
        """Until some more requests have been answered."""
        wanted = self.done + count
        wait_until(lambda: self.done >= wanted, "requests that are answered")

    async def _run(self) -> None:
        kept = Load(self._address)
        try:
            await asyncio.gather(self._send(kept, self._rate), self._send(None, self._rate / 2))
        finally:
            await kept.close()

    async def _send(self, kept: Load | None, rate: float) -> None:
        loop = asyncio.get_running_loop()
        begun, tasks = loop.time(), set[asyncio.Task[None]]()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
            if self._stop.is_set():
                break
            task = loop.create_task(self._one(kept))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _one(self, kept: Load | None) -> None:
        number = next(self._numbers)
        text = f"load says number {number}"
        if number % 4 == 0:
            body = msgspec.json.encode({"text": text})
            data = request("POST", "/notes", body, content_type="application/json")
        else:
            data = request("GET", "/notes")
        load = kept or Load(self._address)
        outcome = await load.send(data)
        load.outcomes.clear()
        if kept is None:
            await load.close()
        self._note(outcome, text if number % 4 == 0 else None)

    def _note(self, outcome: Answer | Failure, text: str | None) -> None:
        if isinstance(outcome, Failure):
            self.failed[f"{outcome.kind}: {outcome.detail}"] += 1
        elif outcome.status >= 300:
            self.failed[f"{outcome.status} {outcome.body[:100]!r}"] += 1
        else:
            self.done += 1
            if text is not None:
                self.written[str(msgspec.json.decode(outcome.body)["id"])] = text
