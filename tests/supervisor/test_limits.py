"""CPU of emulated hosts: real control groups, real burning of CPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from outgrow.cluster.measure import cpu_seconds
from outgrow.supervisor import limits
from outgrow.supervisor.limits import Limits
from outgrow.supervisor.logs import Logs
from outgrow.supervisor.supervisor import Supervisor
from outgrow.workload import Workload
from tests.support.lacking import lacking

FLEET = f"test{os.getpid()}"
BURN = (sys.executable, "-c", "while True: pass")
TWO = (sys.executable, "-c", "import os\nos.fork()\nwhile True: pass")
SECONDS = 1.5


def groups() -> list[str]:
    """What is left of this test in the kernel."""
    return [folder for folder, _, _ in os.walk(limits.ROOT) if f"outgrow-{FLEET}-" in folder]


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(Logs(tmp_path), FLEET)
    with subprocess.Popen(("sleep", "10")) as probe:
        made.limits.join("probe", probe.pid)
        probe.kill()
    made.limits.remove()
    if made.limits.why_not:
        lacking(made.limits.why_not)
    try:
        yield made
    finally:
        await made.stop()
        assert groups() == []


def quota() -> str:
    """Of the only group, as the kernel says it."""
    [group] = map(Path, groups())
    told = group / "cpu.cfs_quota_us"
    return (told if told.exists() else group / "cpu.max").read_text().strip()


async def used(supervisor: Supervisor, names: list[str]) -> float:
    """Cores that these nodes keep busy."""
    pids = [supervisor.nodes[name].pid for name in names]
    before, began = [cpu_seconds(pid) for pid in pids if pid], time.monotonic()
    await asyncio.sleep(SECONDS)
    after = [cpu_seconds(pid) for pid in pids if pid]
    return (sum(filter(None, after)) - sum(filter(None, before))) / (time.monotonic() - began)


def burner(name: str, host: str, cpu: float | None, argv: tuple[str, ...] = BURN) -> Workload:
    return Workload(name=name, argv=argv, host=host, cpu=cpu)


async def test_a_host_gets_no_more_than_its_share_whatever_runs_on_it(supervisor: Supervisor) -> None:
    await supervisor.start([burner("a", "one", 0.2, TWO), burner("b", "one", 0.2), burner("c", "two", 0.1)])
    assert len(groups()) == 2
    assert await used(supervisor, ["a", "b"]) < 0.26
    assert await used(supervisor, ["c"]) < 0.14


async def test_it_is_changed_while_it_runs(supervisor: Supervisor) -> None:
    await supervisor.start([burner("a", "one", None, TWO)])
    assert groups() == []
    await asyncio.sleep(0.3)  # it forks
    supervisor.limit("a", 0.1)
    assert await used(supervisor, ["a"]) < 0.14
    supervisor.limit("a", 0.01)
    assert await used(supervisor, ["a"]) < 0.04
    supervisor.limit("a", None)
    assert quota() in ("-1", f"max {limits.PERIOD_US}"), "a busy machine may give it little even so"


async def test_a_group_goes_with_the_last_of_its_host(supervisor: Supervisor) -> None:
    await supervisor.start([burner("a", "one", 0.2), burner("b", "one", 0.2)])
    await supervisor.remove(["a"])
    assert len(groups()) == 1
    await supervisor.remove(["b"])
    assert groups() == []


async def test_what_a_crash_has_left_is_removed(supervisor: Supervisor) -> None:
    await supervisor.start([burner("a", "one", 0.2)])
    left = Path(groups()[0])
    await supervisor.stop()
    left.mkdir()
    assert len(groups()) == 1
    Limits(FLEET).remove()
    assert groups() == []


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """The files of version 2 in a folder: what is written into them is what this test is about."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory")
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    return tmp_path


def test_version_2_has_its_own_form(unified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def own() -> Iterator[tuple[str, str]]:
        yield "", "/"

    monkeypatch.setattr(limits, "_own", own)
    made = Limits(FLEET, unified)
    made.join("one", os.getpid())
    group = unified / f"outgrow-{FLEET}-one"
    assert (group / "cgroup.procs").read_text() and not made.why_not
    for cores, written in ((0.5, "10000 20000"), (0.01, "1000 100000"), (None, "max 20000")):
        made.set("one", cores)
        assert (group / "cpu.max").read_text() == written


def test_where_nothing_can_be_limited_it_is_told(tmp_path: Path) -> None:
    made = Limits(FLEET, tmp_path)
    made.join("one", os.getpid())
    made.set("one", 0.1)
    assert "no control group" in made.why_not
