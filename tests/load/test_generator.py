"""Whole runs against a real server: the rate is kept, pauses are seen, and checks find what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from outgrow.errors import Misuse, OutgrowError
from outgrow.load.generator import Progress, run
from outgrow.load.parse import parse, parse_file
from outgrow.load.profile import Scenario
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.load.realworld import Server, serving
from tests.support.source import ROOT

GET = """
users = 50
connections = 50
arrivals = "constant"
warmup = 0
rate = 200
duration = 1
[request.list]
weight = 1
path = "/api/articles?limit=1"
signed_in = 0
"""


def mix(**changes: Any) -> Scenario:
    """The example's scenario, for a second."""
    scenario = parse_file(ROOT / "examples" / "conduit" / "load.toml")
    base = replace(scenario, rate=200.0, duration=1.2, warmup=0.0, users=20, connections=20)
    return replace(base, **changes)


async def load(app: Server, scenario: Scenario, **more: Any) -> Report:
    async with serving(app) as url:
        return await run(scenario, resolve(url), **more)


async def test_the_rate_is_kept_and_every_start_is_accounted_for() -> None:
    report = await load(Server(), parse(GET))
    assert (report.intended, report.answered, report.failed) == (200, 200, 0)
    assert report.rate_intended == 200
    assert report.latency.count == report.late.count == 200
    assert report.connections_opened <= 50
    assert report.latency.minimum >= report.service.minimum > 0


async def test_a_pause_of_the_server_is_seen_by_everybody_who_would_have_met_it() -> None:
    """A closed loop would see one slow request: the others would never have been sent."""
    app = Server()

    async def pause() -> None:
        await asyncio.sleep(0.4)
        app.answer_s = 0.5
        await asyncio.sleep(0.02)
        app.answer_s = 0.0

    scenario = parse(GET.replace("connections = 50", "connections = 1"))
    async with serving(app) as url:
        pausing = asyncio.create_task(pause())
        report = await run(scenario, resolve(url))
        await pausing
    assert report.answered == 200
    slow = sum(count for highest, count in report.latency.steps if highest > 100)
    slow_service = sum(count for highest, count in report.service.steps if highest > 100)
    assert slow > 60  # 0.5 s at 200/s, but for the last 0.1 s
    assert slow_service < 10
    assert report.waited.maximum > 300
    assert any("waited" in warning for warning in report.warnings)


async def test_more_than_can_wait_is_not_sent_and_told() -> None:
    app = Server()
    app.answer_s = 0.2
    report = await load(app, replace(parse(GET), connections=2, waiting=5))
    assert report.not_sent > 100
    assert report.errors["not sent"] == report.not_sent
    assert report.answered + report.failed + report.not_sent == report.intended == 200
    assert max(row.waiting for row in report.series) == 5


async def test_what_still_waits_when_patience_ends_is_not_sent() -> None:
    app = Server()
    app.answer_s = 0.3
    report = await load(app, replace(parse(GET), connections=1, timeout=0.6, duration=0.5))
    assert report.answered + report.failed + report.not_sent == report.intended == 100
    assert report.not_sent > 50


async def test_timeouts_are_errors() -> None:
    app = Server()
    app.answer_s = 5.0
    report = await load(app, replace(parse(GET), timeout=0.2, duration=0.2))
    assert report.errors == {"timeout": 40}
    assert report.failures.minimum >= 200
    assert report.answered == 0
    assert report.warnings


async def test_nobody_listens() -> None:
    async with serving(Server()) as url:
        pass
    report = await run(replace(parse(GET), duration=0.1), resolve(url))
    assert report.errors == {"refused": 20}
    assert report.examples[0].asked == "GET /api/articles?limit=1"


async def test_errors_by_kind_with_examples() -> None:
    app = Server()
    app.fail_share = 0.1
    report = await load(app, parse(GET))
    assert report.errors == {"status 503": 20}
    assert report.requests[0].errors == {"status 503": 20}
    assert len(report.examples) == 3
    assert "tired" in report.examples[0].detail
    assert report.error_share == 0.1


async def test_the_warm_up_is_not_measured_and_the_phases_are() -> None:
    phases = "\n[[phase]]\nrate = 100\nduration = 0.5\n[[phase]]\nrate = 100\nto = 300\nduration = 0.5\n"
    scenario = parse(
        GET.replace("rate = 200\nduration = 1\n", "").replace("warmup = 0", "warmup = 0.5") + phases
    )
    app = Server()
    app.keeps_requests = True
    report = await load(app, scenario)
    assert report.intended == report.answered == 150
    assert len(app.seen) == 200
    assert not report.series[0].warmup  # only a part of this second was


async def test_users_are_set_up_and_the_mix_is_right() -> None:
    app = Server()
    app.keeps_requests = True
    report = await load(app, mix())
    assert report.failed == report.not_sent == 0
    assert report.answered == report.intended
    assert app.users == 20
    asked = app.seen[44:]  # 4 lists, 20 users, 20 articles
    assert all(headers[b"traceparent"].startswith(b"00-") for _, _, headers in asked)
    signed_in = sum(b"authorization" in headers for _, _, headers in asked)
    assert signed_in == pytest.approx(len(asked) * 0.53, rel=0.25)
    writes = sum(method != "GET" for method, _, _ in asked)
    assert writes == pytest.approx(len(asked) * 0.10, rel=0.5)
    assert report.checked > 10


@pytest.mark.parametrize("phase", ["keep", "drop"])
async def test_stale_reads_are_violations_unless_the_bookmark_prevents_them(phase: str) -> None:
    report = await load(Server(lag_s=0.3), mix(bookmark=phase))
    assert report.checked > 10
    if phase == "keep":
        assert report.violations == 0
    else:
        assert report.violations > 5
        assert report.errors["violation"] > 0
        first = report.violating[0]
        assert first.contradictions[0].expected != first.contradictions[0].found
        assert first.trace_id.startswith("0000")
        assert first.detail.startswith("{")


async def test_no_more_requests_are_under_way_than_there_are_users() -> None:
    app = Server()
    app.answer_s = 0.05
    report = await load(app, mix(users=3, connections=100, duration=0.5))
    assert report.connections == 3
    assert report.connections_opened <= 3
    assert report.failed == 0


async def test_stopping_ends_it_early_with_a_report() -> None:
    stop, app = asyncio.Event(), Server()
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        stop.set()

    async with asyncio.timeout(10):
        report = await load(app, replace(parse(GET), duration=60.0), stop=stop, tell=tell)
    assert report.interrupted
    assert 20 < report.answered < 2_000
    assert told[0].state == "loading"
    assert told[0].answered_rate > 0


async def test_what_is_under_way_at_the_end_of_an_interrupted_run_is_told() -> None:
    stop, app = asyncio.Event(), Server()
    app.answer_s = 30.0
    asyncio.get_running_loop().call_later(0.3, stop.set)
    async with asyncio.timeout(10):
        report = await load(app, replace(parse(GET), duration=60.0, timeout=60.0, connections=10), stop=stop)
    assert report.errors["unfinished"] == 10
    assert report.answered + report.failed + report.not_sent == report.intended


async def test_the_second_is_told_while_it_runs() -> None:
    told: list[Progress] = []
    await load(Server(), mix(warmup=1.0, duration=1.2), tell=told.append)
    states = [each.state.partition(",")[0] for each in told]
    assert "set-up: sign up" in states
    assert states[-1] == "loading"
    assert told[-1].row.answered > 10


async def test_a_set_up_request_that_fails_ends_the_run() -> None:
    app = Server()
    app.fail_share = 1.0
    with pytest.raises(OutgrowError, match='the set-up request "the newest articles" failed: status 503'):
        await load(app, mix())
    assert not [task for task in asyncio.all_tasks() if "_Round" in repr(task)]


async def test_stopping_during_the_set_up() -> None:
    stop, app = asyncio.Event(), Server()
    app.answer_s = 0.05
    asyncio.get_running_loop().call_later(0.2, stop.set)
    async with asyncio.timeout(10):
        report = await load(app, mix(users=500), stop=stop)
    assert report.interrupted
    assert report.intended == 0


async def test_without_a_rate_nothing_begins() -> None:
    with pytest.raises(Misuse, match="says a rate"):
        await run(parse(GET.replace("rate = 200\n", "")), resolve("http://127.0.0.1:1"))


async def test_no_descriptor_is_left_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await load(Server(), replace(parse(GET), duration=0.1))
    before = count()
    for _ in range(3):
        await load(Server(), replace(parse(GET), duration=0.1))
    assert count() <= before
