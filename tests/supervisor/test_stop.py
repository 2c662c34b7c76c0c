"""The end: asked first, killed after a while, in the right order, with nothing left however it is reached."""

from __future__ import annotations

import asyncio
import functools
import itertools
import signal
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from outgrow.workload import Probe, Stop, Workload
from tests.supervisor.conftest import (
    PATIENCE_S,
    Supervised,
    eventually,
    forever,
    free_address,
    kill,
    number_in,
    runs,
    shell,
)


def ignores_term(name: str, mark: Path, **more: object) -> Workload:
    """A service that has to be killed."""
    ready = Probe("command", argv=("test", "-e", str(mark)))
    return Workload(name, shell(f"trap '' TERM; touch {mark}; exec sleep 1000"), readiness=ready, **more)  # type: ignore[arg-type]


@types.coroutine
def cancelled_at(turn: int, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Do the work, and cancel it at its await number `turn`, if there are as many."""
    resume: Callable[[], Any] = functools.partial(work.send, None)
    for number in itertools.count():
        try:
            waits_for = resume()
        except StopIteration:
            return
        task = asyncio.current_task()
        if number == turn and task is not None:
            task.cancel()
        try:
            yield waits_for
            resume = functools.partial(work.send, None)
        except asyncio.CancelledError as error:
            resume = functools.partial(work.throw, error)


async def as_coroutine(work: Awaitable[None]) -> None:
    await work


async def test_it_may_finish_what_it_does(fleet: Supervised, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    text = f"trap 'sleep 0.3; echo finished; exit' INT; touch {ready}; while :; do sleep 0.01; done"
    probe = Probe("command", argv=("test", "-e", str(ready)))
    await fleet.start(Workload("app", shell(text), readiness=probe, stop=Stop("INT", grace_s=PATIENCE_S)))
    await fleet.stop()
    assert fleet.log("app") == "finished\n" and fleet.states("app")[-2:] == ["stopping", "stopped"]
    assert fleet.notes == {} and fleet["app"].pid is None


async def test_who_ignores_it_is_killed(fleet: Supervised, tmp_path: Path) -> None:
    await fleet.start(ignores_term("app", tmp_path / "ready", stop=Stop(grace_s=0.3)))
    began = time.monotonic()
    await fleet.stop()
    assert time.monotonic() - began >= 0.3 and fleet["app"].state == "stopped"


async def test_a_stopped_process_ends_too(fleet: Supervised) -> None:
    await fleet.start(forever("app", stop=Stop(grace_s=0.2)))
    fleet["app"].process._popen.send_signal(signal.SIGSTOP)
    await fleet.stop()
    assert fleet.processes() == []


@pytest.mark.parametrize("how", ["", "setsid", "env -i", "setsid nohup"])
async def test_grandchildren_end_with_it(fleet: Supervised, tmp_path: Path, how: str) -> None:
    child = tmp_path / "child"
    text = f"{how} sh -c 'trap \"\" TERM; echo $$ > {child}; exec sleep 1000' & exec sleep 1000"
    await fleet.start(Workload("app", shell(text), stop=Stop(grace_s=0.5)))
    await eventually(lambda: number_in(child), "the grandchild")
    grandchild = number_in(child)
    assert grandchild is not None
    await fleet.stop()
    assert not runs(grandchild)


async def test_what_others_need_ends_after_them(fleet: Supervised) -> None:
    await fleet.start(
        forever("db"),
        forever("cache"),
        forever("app", after=("db",)),
        forever("edge", after=("app", "cache")),
    )
    await fleet.stop()
    ended = [change.node for change in fleet.changes if change.state == "stopped"]
    assert ended[:2] == ["edge", "app"] or ended.index("edge") < ended.index("app") < ended.index("db")
    assert ended.index("edge") < ended.index("cache")


async def test_many_that_ignore_it_take_no_longer_than_one(fleet: Supervised, tmp_path: Path) -> None:
    names = [f"app-{number}" for number in range(8)]
    grace_s = 2.0
    await fleet.start(*(ignores_term(name, tmp_path / name, stop=Stop(grace_s=grace_s)) for name in names))
    began = time.monotonic()
    await fleet.stop()
    assert time.monotonic() - began < len(names) * grace_s / 2


async def test_cancelled_at_any_moment_of_the_start(fleet: Supervised, tmp_path: Path) -> None:
    """The task is cancelled at its first await, its second, ... until it gets through without."""

    def workloads(turn: int) -> tuple[Workload, ...]:
        mark = tmp_path / f"{turn}"
        return (
            Workload("init", shell(f"touch {mark}"), kind="job", listen=(free_address(),)),
            Workload(
                "db",
                ("sleep", "1000"),
                after=("init",),
                readiness=Probe("command", argv=("test", "-e", str(mark)), interval_s=0.001),
            ),
            forever("app", after=("db",)),
        )

    for turn in range(1000):
        made = Supervised(tmp_path, f"cancelled-{turn}")
        task = asyncio.ensure_future(as_coroutine(cancelled_at(turn, made.start(*workloads(turn)))))
        (done,) = await asyncio.gather(task, return_exceptions=True)
        await made.stop()
        assert made.processes() == [] and made.notes == {}
        if done is None:
            break
        assert isinstance(done, asyncio.CancelledError)
    assert done is None and turn >= 3, "the last one went through, after some that did not"


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1, 0.3])
async def test_cancelled_while_a_job_runs_or_a_service_is_not_ready(
    fleet: Supervised, delay_s: float
) -> None:
    job = Workload("job", shell("sleep 0.1; true"), kind="job")
    slow = forever("slow", after=("job",), readiness=Probe("tcp", free_address()))
    task = asyncio.ensure_future(fleet.start(job, slow))
    await asyncio.sleep(delay_s)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    await fleet.stop()
    assert fleet.processes() == []


async def test_stop_while_the_start_still_goes_on(fleet: Supervised) -> None:
    """Nobody has cancelled it: what it would still start must not appear."""
    job = Workload("job", ("sleep", "1000"), kind="job")
    task = asyncio.ensure_future(fleet.start(job, forever("app", after=("job",))))
    await eventually(lambda: fleet.states("job"), "the job")
    await fleet.stop()
    done = (await asyncio.gather(task, return_exceptions=True))[0]
    assert (
        isinstance(done, Exception) and fleet.states("app") in ([], ["stopped"]) and fleet.processes() == []
    )


async def test_stop_while_a_service_is_between_two_lives(fleet: Supervised) -> None:
    await fleet.start(forever("app"))
    kill(fleet["app"].pid)
    await eventually(lambda: fleet["app"].state == "restarting", "its death to be seen")
    await fleet.stop()
    assert fleet["app"].state == "stopped" and fleet.processes() == []


async def test_a_cancelled_stop_kills(fleet: Supervised, tmp_path: Path) -> None:
    await fleet.start(forever("db"), ignores_term("app", tmp_path / "ready", after=("db",)))
    pids = fleet.processes()
    task = asyncio.ensure_future(fleet.stop())
    await eventually(lambda: fleet["app"].state == "stopping", "the stop to begin")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not any(map(runs, pids)), "all to be killed")


async def test_twice(fleet: Supervised) -> None:
    await fleet.start(forever("app"))
    await asyncio.gather(fleet.stop(), fleet.stop())
    await fleet.stop()
    assert fleet["app"].state == "stopped"


async def test_a_failing_listener_of_changes_leaves_no_child(fleet: Supervised) -> None:
    await fleet.start(forever("db"), forever("app"))
    pids = fleet.processes()

    def broken(change: object) -> None:
        raise RuntimeError("a listener's mistake")

    before, fleet.supervisor._tell = fleet.supervisor._tell, broken
    with pytest.raises(RuntimeError, match="mistake"):
        await fleet.stop()
    fleet.supervisor._tell = before
    await eventually(lambda: not any(map(runs, pids)), "all to be killed")
