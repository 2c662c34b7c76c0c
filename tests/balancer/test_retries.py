"""What is safe to repeat is repeated on another server, and nothing else is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outgrow.load.client import Answer
from tests.support.balancing import Upstream, balanced, load, request, send, status

SLOW_CHECKS = '[balancer.health]\ninterval = "1h"\n'
"""Retries alone have to save the requests."""


def breaks(upstream: Upstream) -> None:
    """From now on this server reads a request and dies of it, as by kill -9."""

    async def answer(seen: object) -> tuple[int, dict[str, str]]:
        await upstream.stop()
        await asyncio.sleep(3600)
        raise AssertionError

    upstream.answer = answer  # type: ignore[method-assign]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_request_goes_to_another_server(tmp_path: Path, method: str) -> None:
    async with balanced(tmp_path, SLOW_CHECKS) as it:
        breaks(it["app-1"])
        breaks(it["app-2"])
        assert [await status(it.address, request(method)) for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_a_server_may_have_done_is_not_repeated(tmp_path: Path, method: str) -> None:
    async with balanced(tmp_path, SLOW_CHECKS) as it:
        for name in it.upstreams:
            breaks(it[name])
        answer = await send(it.address, request(method, body=b"order"))
        assert isinstance(answer, Answer) and answer.status == 503
        assert sum(each.count for each in it.upstreams.values()) == 1


async def test_a_write_is_repeated_when_no_server_has_seen_it(tmp_path: Path) -> None:
    async with balanced(tmp_path, SLOW_CHECKS) as it, load(it) as clients:
        await it["app-1"].stop()
        await it["app-2"].stop()
        await clients.many(20, data=request("POST", body=b"order"))
        assert not clients.failed and it["app-3"].count == 20


async def test_no_answer_in_time(tmp_path: Path) -> None:
    """A GET is tried on the others; a POST fails when its time is over, and is not repeated."""
    times = 'balancer.attempt_timeout = "300ms"\nbalancer.request_timeout = "600ms"\n'
    async with balanced(tmp_path, times + SLOW_CHECKS) as it:
        it["app-1"].seconds = it["app-2"].seconds = 5
        answers = [await send(it.address, request()) for _ in range(3)]
        assert [isinstance(each, Answer) and each.status for each in answers] == [200] * 3
        it["app-3"].seconds = 5
        it.shares()
        answer = await send(it.address, request("POST", body=b"x"))
        assert isinstance(answer, Answer) and answer.status == 504
        assert sum(it.shares().values()) == 1


async def test_retries_have_a_budget(tmp_path: Path) -> None:
    """Servers that fail every request get hardly more requests than come in."""
    async with balanced(tmp_path, "balancer.retry_share = 0.1\n" + SLOW_CHECKS) as it, load(it) as clients:
        for each in it.upstreams.values():
            each.status, each.seconds = 503, 0.3
        await clients.at_rate(400, 2.0)
        asked = len(clients.outcomes)
        assert clients.failed == {"503": asked}
        assert sum(each.count for each in it.upstreams.values()) < 1.5 * asked


async def test_more_than_may_be_under_way_is_refused_at_once(tmp_path: Path) -> None:
    async with (
        balanced(tmp_path, "balancer.limits.under_way = 10\nbalancer.retries = 0\n") as it,
        load(it) as clients,
    ):
        for each in it.upstreams.values():
            each.seconds = 0.5
        await clients.many(40, concurrency=40)
        refused = [
            seconds
            for _, seconds, outcome in clients.outcomes
            if isinstance(outcome, Answer) and outcome.status == 503
        ]
        assert 20 <= len(refused) <= 31 and max(refused) < 0.4, (len(refused), max(refused))
        assert clients.failed == {"503": len(refused)}
