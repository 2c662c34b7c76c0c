"""The session guarantees over real replicas that are late, pause, die and are promoted.

Many sessions work on registers, and what each of them saw is judged by the checker, which trusts nothing of
what is tested here: `eventual` shows violations, so that it is seen to see, and `session` none.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from outgrow.chaos.faults.cut import Cut
from outgrow.chaos.guarantees import Judgement, check, lost
from outgrow.chaos.operations import GUARANTEES
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from tests.support.histories import Player
from tests.support.postgres import PostgresServer
from tests.support.replicas import Replicated, replicated
from tests.support.stage import Stage
from tests.support.troubles import Troubles

DELAY_S = 0.5
ON_ITS_WAY_S = 0.1
"""So long an answer may have been on its way."""


@pytest.fixture(scope="module")
def troubles() -> Iterator[Troubles]:
    """A primary and two replicas that apply half a second late."""
    with replicated(2, Replicated) as cluster:
        yield Troubles(cluster, DELAY_S)


@pytest.fixture
async def stage(troubles: Troubles) -> AsyncIterator[Stage]:
    """With registers that nobody has written yet."""
    made = await asyncio.to_thread(Stage, troubles)
    async with made.og:
        made.og.queue.start()
        yield made
    await asyncio.to_thread(made.leave)


def assert_kept(player: Player) -> Judgement:
    """Nothing is broken, and there was enough to judge, on more than one server."""
    judgement = check(player.operations)
    assert judgement.held, judgement.violations[:3]
    assert len(player.ports()) > 1, player.ports()
    return judgement


async def test_eventual_breaks_what_it_does_not_promise(stage: Stage) -> None:
    player = await stage.play("eventual", lambda: stage.troubles.pause(1.5))
    broken = check(player.operations).broken
    assert all(broken[each] for each in GUARANTEES[:4]), broken
    assert not player.refused


async def test_session_keeps_all_of_them(stage: Stage) -> None:
    player = await stage.play("session")
    assert_kept(player)
    assert not player.refused
    assert lost(player.operations, await stage.last()) == []


async def test_a_replica_that_applies_nothing(stage: Stage) -> None:
    player = await stage.play("session", lambda: stage.troubles.pause(1.0))
    assert_kept(player)
    assert not player.refused


async def test_a_replica_that_is_killed(stage: Stage) -> None:
    player = await stage.play("session", stage.troubles.kill_replica)
    assert_kept(player)


async def test_a_replica_that_hangs(stage: Stage) -> None:
    player = await stage.play("session", lambda: stage.troubles.hang(1.0))
    assert_kept(player)


async def test_a_partition_from_a_replica(stage: Stage) -> None:
    """This process loses its connections to one of them, as often as it makes new ones."""
    replica = stage.cluster.replicas[0]
    player = await stage.play("session", lambda: cut("127.0.0.1", replica.port))
    assert_kept(player)


async def test_a_partition_from_the_primary(stage: Stage) -> None:
    """Reads go on at the replicas; writes wait or fail."""
    primary = stage.cluster.primary
    player = await stage.play("session", lambda: cut("127.0.0.1", primary.port))
    assert_kept(player)


async def test_failover_that_loses_nothing(stage: Stage) -> None:
    dead: list[PostgresServer] = []
    player = await stage.play("session", lambda: dead.append(stage.troubles.fail_over()))
    assert_kept(player)
    assert lost(player.operations, await stage.last()) == []
    stage.troubles.bring_back(*dead)


async def test_failover_that_loses_writes_tells_whom_it_concerns(stage: Stage) -> None:
    dead: list[PostgresServer] = []
    player = await stage.play("session", lambda: dead.append(stage.troubles.fail_over(cut_off_s=0.3)))
    assert_kept(player)
    assert lost(player.operations, await stage.last()), "nothing was lost: the test shows nothing"
    assert player.refused["LostWrite"]
    stage.troubles.bring_back(*dead)


async def test_an_old_primary_that_wakes_up(stage: Stage) -> None:
    """It was stopped, another was promoted, and it believes to be the primary: it acknowledges nothing."""
    old, stopped_at = stage.cluster.primary, list[float]()

    def wake() -> None:
        stopped_at.append(time.perf_counter())
        stopped = old.freeze()
        stage.troubles.fail_over(kill=False)
        old.thaw(stopped)
        assert not old.execute("SELECT pg_is_in_recovery()")[0][0]

    player = await stage.play("session", wake)
    assert_kept(player)
    # Replication is asynchronous: what it had acknowledged before, no replica may have received.
    late = [
        each
        for each in lost(player.operations, await stage.last())
        if each.ended > stopped_at[0] + ON_ITS_WAY_S
    ]
    assert late == []
    stage.troubles.bring_back(old)


def cut(host: str, port: int) -> None:
    """For a second."""
    me = Note(os.getpid(), orphans.start_time(os.getpid()) or 0)
    fault = Cut("this process is cut off", [me], [(host, port)])

    async def run() -> None:
        await fault.prepare()
        try:
            await fault.inject()
            await asyncio.sleep(1.0)
        finally:
            await fault.undo()

    asyncio.run(run())
