"""Deep health: every check in its own time, at most once a second, for all who ask."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from outgrow.runtime import health as module
from outgrow.runtime.health import Health, disk_space


async def in_order() -> str | None:
    return None


async def hangs() -> str | None:
    await asyncio.sleep(60)
    return None


async def refused() -> str | None:
    raise ConnectionRefusedError("no such port")


def test_without_checks_all_is_well() -> None:
    report = asyncio.run(Health().deep())
    assert (report.status, report.checks) == ("ok", [])


@pytest.mark.parametrize(
    ("checks", "status"),
    [
        ({"a": True}, "ok"),
        ({"a": True, "-b": False}, "degraded"),
        ({"a": False, "-b": False}, "failing"),
        ({"-b": False, "a": False}, "failing"),
        ({"a": False, "-b": True}, "failing"),
    ],
)
def test_one_critical_check_that_fails_is_enough(checks: dict[str, bool], status: str) -> None:
    health = Health()
    for name, good in checks.items():
        health.add(name, in_order if good else refused, critical=not name.startswith("-"))
    assert asyncio.run(health.deep()).status == status


def test_a_check_that_hangs_holds_nobody_up() -> None:
    health = Health()
    health.add("database", hangs, timeout_s=0.05)
    health.add("cache", hangs, timeout_s=0.05, critical=False)
    started = time.monotonic()
    report = asyncio.run(health.deep())
    assert time.monotonic() - started < 1
    assert [result.reason for result in report.checks] == ["no answer within 0.05 s"] * 2
    assert report.checks[0].seconds >= 0.05


def test_many_who_ask_at_once_share_one_run_which_survives_the_first() -> None:
    runs = 0

    async def slow() -> str | None:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0.05)
        return None

    async def ask() -> None:
        health = Health()
        health.add("database", slow)
        first = asyncio.create_task(health.deep())
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(health.deep()) for _ in range(20)]
        first.cancel()
        reports = await asyncio.gather(*others)
        assert {report.status for report in reports} == {"ok"}
        assert await health.deep() is reports[0]

    asyncio.run(ask())
    assert runs == 1


def test_a_report_is_made_anew_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.02)

    async def ask() -> None:
        health = Health()
        first = await health.deep()
        await asyncio.sleep(0.03)
        assert await health.deep() is not first
        health.add("database", refused)
        assert (await health.deep()).status == "failing"
        health.remove("database")
        assert (await health.deep()).status == "ok"

    asyncio.run(ask())


def test_a_long_reason_is_cut() -> None:
    async def verbose() -> str | None:
        raise ValueError("x" * 10_000)

    health = Health()
    health.add("a", verbose)
    [result] = asyncio.run(health.deep()).checks
    assert result.reason is not None
    assert len(result.reason) == module.REASON_LENGTH_MAX


def test_disk_space(tmp_path: Path) -> None:
    remark = asyncio.run(disk_space(tmp_path, free_bytes_min=1)())
    assert remark is not None
    assert remark.endswith("GiB free")
    with pytest.raises(OSError, match="less than"):
        asyncio.run(disk_space(tmp_path, free_bytes_min=2**60)())
