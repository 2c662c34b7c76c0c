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
from outgrow.chaos.operations import GUARANTEES, Operation
from outgrow.supervisor import orphans
from outgrow.supervisor.orphans import Note
from tests.support.cache import CacheServer
from tests.support.fleets import wait_until
from tests.support.histories import Mix, Player
from tests.support.postgres import PostgresServer
from tests.support.replicas import Replicated, replicated
from tests.support.stage import Stage
from tests.support.troubles import Troubles

DELAY_S = 0.5


@pytest.fixture(scope="module")
def troubles() -> Iterator[Troubles]:
    """A primary and two replicas that apply half a second late."""
    with replicated(2, Replicated) as cluster:
        made = Troubles(cluster, DELAY_S)
        try:
            yield made
        finally:
            made.close()


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
    def all_broken(player: Player) -> bool:
        broken = check(list(player.operations)).broken
        return all(broken[each] for each in GUARANTEES[:4])

    def pause(player: Player) -> None:
        """For longer than anybody's delay, so that what others have read before is missing as well."""

        def once_more() -> bool:
            stage.troubles.pause(a_while)
            return all_broken(player)

        wait_until(once_more, "violations of every kind")

    player = await stage.play("eventual", pause, Mix(keys=10))
    assert all_broken(player) and not player.refused


async def test_session_keeps_all_of_them(stage: Stage) -> None:
    player = await stage.play("session")
    assert_kept(player)
    assert not player.refused
    assert lost(player.operations, await stage.last()) == []


async def test_a_replica_that_applies_nothing(stage: Stage) -> None:
    player = await stage.play("session", lambda _: stage.troubles.pause(a_while))
    assert_kept(player)
    assert not player.refused


async def test_a_replica_that_is_killed(stage: Stage) -> None:
    player = await stage.play("session", lambda _: stage.troubles.kill_replica())
    assert_kept(player)


async def test_a_replica_that_hangs(stage: Stage) -> None:
    player = await stage.play("session", lambda _: stage.troubles.hang(a_while))
    assert_kept(player)


async def test_a_partition_from_a_replica(stage: Stage) -> None:
    """This process loses its connections to one of them, as often as it makes new ones."""
    replica = stage.cluster.replicas[0]
    player = await stage.play("session", lambda _: cut("127.0.0.1", replica.port))
    assert_kept(player)


async def test_a_partition_from_the_primary(stage: Stage) -> None:
    """Reads go on at the replicas; writes wait or fail."""
    primary = stage.cluster.primary
    player = await stage.play("session", lambda _: cut("127.0.0.1", primary.port))
    assert_kept(player)


async def test_failover_that_loses_nothing(stage: Stage) -> None:
    dead: list[PostgresServer] = []
    player = await stage.play("session", lambda _: dead.append(stage.troubles.fail_over()))
    assert_kept(player)
    assert lost(player.operations, await stage.last()) == []
    stage.troubles.bring_back(*dead)


async def test_failover_with_confirmed_commits_alarms_nobody(troubles: Troubles) -> None:
    """Nor those who have just read at the primary, nobody knows how far: all of it was confirmed."""
    stage = await asyncio.to_thread(Stage, troubles, "semi-sync")
    troubles.confirmed_by("ANY 1 (*)")
    dead: list[PostgresServer] = []
    async with stage.og:
        stage.og.queue.start()
        # Whose bookmark was merged with another's is not known to have read at one node, and told in doubt.
        alone = Mix(hands_over=0.0)
        player = await stage.play("session", lambda _: dead.append(troubles.fail_over()), alone)
    assert_kept(player)
    assert lost(player.operations, await stage.last()) == []
    assert not player.refused["LostWrite"]
    troubles.bring_back(*dead)
    await asyncio.to_thread(stage.leave)


async def test_failover_that_loses_writes_tells_whom_it_concerns(stage: Stage) -> None:
    dead: list[PostgresServer] = []

    def lose(player: Player) -> None:
        dead.append(stage.troubles.fail_over(cut_off=lambda: player.wait_for(20, "write")))

    player = await stage.play("session", lose)
    assert_kept(player)
    assert lost(player.operations, await stage.last()), "nothing was lost: the test shows nothing"
    assert untold(player.operations, lost(player.operations, await stage.last())) == []
    assert player.refused["LostWrite"]
    stage.troubles.bring_back(*dead)


async def test_an_old_primary_that_wakes_up(stage: Stage) -> None:
    """It was stopped, another was promoted, and it believes to be the primary still.

    Replication is asynchronous: what it has acknowledged last may be lost, but nobody who knows of it goes on
    elsewhere without being told.
    """
    old = stage.cluster.primary

    def wake(player: Player) -> None:
        stopped = old.freeze()
        stage.troubles.fail_over(kill=False)
        old.thaw(stopped)
        assert not old.execute("SELECT pg_is_in_recovery()")[0][0]

    player = await stage.play("session", wake)
    assert_kept(player)
    assert untold(player.operations, lost(player.operations, await stage.last())) == []
    stage.troubles.bring_back(old)


@pytest.fixture
def cache() -> Iterator[CacheServer]:
    made = CacheServer(application="registers")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("trouble", ["calm", "cache", "failover"])
async def test_several_processes_that_share_a_cache(
    troubles: Troubles, cache: CacheServer, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.runtime.cache.shared.GRACE_S", 0.3)
    monkeypatch.setattr("outgrow.runtime.cache.redis.RETRY_MAX_S", 0.1)
    stage = await asyncio.to_thread(Stage, troubles, "async", cache)
    dead: list[PostgresServer] = []

    def restart(_: Player) -> None:
        cache.kill()
        cache.start()

    happens = {
        "calm": lambda _: a_while(),
        "cache": restart,
        "failover": lambda _: dead.append(troubles.fail_over()),
    }
    async with stage.og, stage.another() as second, stage.another() as third:
        stage.others = [second, third]
        stage.og.queue.start()
        player = await stage.play("session", happens[trouble], Mix(keys=20))
        if trouble != "failover":
            for og in (stage.og, second, third):
                await og.cache.check()
    assert_kept(player)
    if dead:
        troubles.bring_back(*dead)
    await asyncio.to_thread(stage.leave)


def untold(operations: list[Operation], gone: list[Operation]) -> list[Operation]:
    """What sessions have done elsewhere after a write of theirs that is lost, as if nothing had happened."""
    last = {each.session: each for each in gone}
    return [
        each
        for each in operations
        if each.session in last and each.outcome == "ok" and each.node not in ("", last[each.session].node)
        if each.started > last[each.session].ended
    ]


def a_while() -> None:
    time.sleep(3 * DELAY_S)


def cut(host: str, port: int) -> None:
    """For a while."""
    me = Note(os.getpid(), orphans.start_time(os.getpid()) or 0)
    fault = Cut("this process is cut off", [me], [(host, port)])

    async def run() -> None:
        await fault.prepare()
        try:
            await fault.inject()
            await asyncio.sleep(2 * DELAY_S)
        finally:
            await fault.undo()

    asyncio.run(run())
