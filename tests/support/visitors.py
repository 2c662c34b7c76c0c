"""Visitors with a session each, who never stop, and of whom nobody may be logged out."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import httpx

from tests.support.fleets import RunningFleet, wait_until

APPLICATION = """
import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from outgrow import Outgrow

og = Outgrow()


async def mark(request):
    name = request.path_params["name"]
    request.session[name] = request.session.get(name, 0) + 1
    return JSONResponse(dict(request.session))


async def slowly(request):
    seen = request.session.get("slow", 0)
    await asyncio.sleep(0.05)
    request.session["slow"] = seen + 1
    return JSONResponse(dict(request.session))


async def rotate(request):
    request.session.rotate()
    return JSONResponse(dict(request.session))


async def look(request):
    return JSONResponse(dict(request.session))


app = Starlette(
    routes=[
        Route("/mark/{name}", mark),
        Route("/slowly", slowly),
        Route("/rotate", rotate),
        Route("/look", look),
    ],
    lifespan=og.lifespan,
)
og.install(app)
"""
"""Each mark counts by itself, so that no change of one request may be lost by another's."""

TOGETHER = ("left", "right")


class Visitors:
    """Some who come again and again, and some who wait until the end. Whatever goes wrong is in `wrong`.

    A visitor has one browser, in which two requests at once change one session. `rotating`: now and then
    they get a new id. `lenient`: a request may fail, as when the fleet itself is killed; a session may not.
    """

    def __init__(
        self, fleet: RunningFleet, *, count: int = 4, waiting: int = 40, rotating: bool = True
    ) -> None:
        self.wrong: list[str] = []
        self.requests = 0
        self.lenient = False
        self._fleet = fleet
        self._rotating = rotating
        self._stop = threading.Event()
        self._waiting = [self._browser() for _ in range(waiting)]
        self._threads = [threading.Thread(target=self._come_again) for _ in range(count)]

    def __enter__(self) -> Visitors:
        for browser in self._waiting:
            browser.get("/mark/waits").raise_for_status()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for browser in self._waiting:
            browser.close()

    def wait_for_more(self, count: int = 60) -> None:
        """Until some more requests have been answered."""
        wanted = self.requests + count
        wait_until(lambda: self.requests >= wanted, "visitors who are answered")

    def require_those_who_waited(self) -> None:
        """Nobody who had a session at the beginning has lost it, or what was in it."""
        shown = [browser.get("/look").raise_for_status().json() for browser in self._waiting]
        lost = [each for each in shown if each != {"waits": 1}]
        assert not lost, f"of {len(shown)} sessions these are not what they were: {lost}"

    def _browser(self) -> httpx.Client:
        return httpx.Client(base_url=self._fleet.url, timeout=20)

    def _come_again(self) -> None:
        with self._browser() as browser:
            seen = self._ask(browser, "/mark/first") or {}
            round_ = 0
            while not self._stop.is_set():
                round_ += 1
                both = [
                    threading.Thread(target=self._ask, args=(browser, f"/mark/{side}")) for side in TOGETHER
                ]
                for thread in both:
                    thread.start()
                self._ask(browser, "/slowly")
                for thread in both:
                    thread.join()
                if self._rotating and round_ % 5 == 0:
                    self._ask(browser, "/rotate")
                now = self._ask(browser, "/look")
                if now is not None:
                    self._compare(seen, now)
                    seen = now

    def _compare(self, before: dict[str, int], now: dict[str, int]) -> None:
        """Each of the round's requests has changed its own key once."""
        expected = {key: before.get(key, 0) + 1 for key in (*TOGETHER, "slow")} | {"first": 1}
        if self.lenient:
            lost = {key for key in before if now.get(key, 0) < before[key]}
            if lost:
                self.wrong.append(f"{before} has become {now}")
        elif now != expected:
            self.wrong.append(f"{before} has become {now}, and not {expected}")

    def _ask(self, browser: httpx.Client, path: str) -> dict[str, int] | None:
        try:
            found: dict[str, int] = browser.get(path).raise_for_status().json()
        except httpx.HTTPError as error:
            if not self.lenient:
                body = error.response.text if isinstance(error, httpx.HTTPStatusError) else ""
                self.wrong.append(f"{time.time():.3f} {path}: {type(error).__name__}: {error} {body}")
            self._stop.wait(0.05)
            return None
        self.requests += 1
        return found
