"""What the shared cache costs and keeps: `python -m benchmarks.shared_cache [--costs] [--quick] [--write]`.

Hits in the process and of the server, beside redis-py in the same run; how many loads a stampede causes in
four processes (four caches in one event loop, each with a connection of its own); and histories of three
processes over late replicas that die and fail over, while the server of the cache is killed and begins anew
empty, judged by chaos/guarantees.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from redis.asyncio import Redis

from benchmarks import report
from outgrow.chaos.guarantees import check
from outgrow.chaos.operations import GUARANTEES
from outgrow.runtime import scope as request
from outgrow.runtime.cache import shared
from outgrow.runtime.cache.codec import codec_of
from outgrow.runtime.serve import FULL_COLLECTION_AFTER, GC_THRESHOLD, MIDDLE_COLLECTION_AFTER
from tests.support.cache import HOST, TESTS, CacheServer, Data, Process, session
from tests.support.histories import Mix, Player
from tests.support.registers_app.register import READ
from tests.support.replicas import Replicated, replicated
from tests.support.stage import Stage
from tests.support.troubles import Troubles

VALUE = b"x" * 1024
AT_ONCE = 64
ROUNDS = 10
KEYS = 1000
PROCESSES = 4
STAMPEDE = 500
REGISTERS = 100
DELAY_S = 0.5
OPERATIONS = 200_000
BETWEEN_S = 4.0


def costs(*, quick: bool) -> str:
    """Hits, and a stampede, as Markdown."""
    shared.GRACE_S = 0.0  # everybody is connected, as is waited for
    gc.set_threshold(GC_THRESHOLD, MIDDLE_COLLECTION_AFTER, FULL_COLLECTION_AFTER)  # as in the servers
    return uvloop.run(_costs(10 if quick else 1))


def histories(*, quick: bool, operations: int = OPERATIONS) -> str:
    """What was kept of the promises, as Markdown."""
    shared.GRACE_S = 0.5
    return _histories(operations // 40 if quick else operations)


async def _costs(divide: int) -> str:
    server = CacheServer()
    server.start()
    try:
        data = Data()
        processes = [Process(data, server) for _ in range(PROCESSES)]
        await asyncio.gather(*(process.open() for process in processes))
        text = await _hits(processes[0], 200_000 // divide)
        text += "\n" + await _of_the_server(
            processes[0], Process(data, server, entries_max=1), 200_000 // divide
        )
        asked = [process.read("stampede", slow_s=0.1) for process in processes * (STAMPEDE // PROCESSES)]
        await asyncio.gather(*asked)
        loads = sum(process.loads for process in processes)
        text += (
            f"\n- {STAMPEDE} misses of one key at once, in {PROCESSES} processes: **{loads}** load, target 1"
        )
        await asyncio.gather(*(process.close() for process in processes))
        return text
    finally:
        server.stop()


async def _hits(process: Process, count: int) -> str:
    async def load() -> bytes:
        return VALUE

    for number in range(KEYS):
        await process.cache.get(f"k:{number}", load, tags=["t"])
    await process.shared.barrier()
    rows = []
    for who, scope in (("nobody's", None), ("a session's", session())):
        request.current.set(scope)
        await process.cache.get("k:1", load)
        began = time.process_time()
        for _ in range(count):
            await process.cache.get("k:1", load)
        rows.append((who, (time.process_time() - began) / count * 1e6))
    request.current.set(None)

    async def asked() -> None:
        request.current.set(session())
        await process.cache.get("k:1", load)

    cpu, _ = await _timed(asked, count // 20)
    lines = [
        report.verdict(f"{who} hit in the process, awaited", cost, 1.5, at_least=False, unit=" us")
        for who, cost in rows
    ]
    return "\n".join(
        [*lines, f"- the first hit of a session's request, which asks the server: {cpu:.1f} us of CPU"]
    )


async def _of_the_server(process: Process, empty: Process, count: int) -> str:
    await empty.open()
    codec = codec_of(bytes)
    server = process.server.nodes[0]
    client = Redis(host=HOST, port=server.port, username=TESTS, password=server.password)
    await client.set("peer", VALUE)
    numbers = itertools.count()

    async def load() -> bytes:
        raise AssertionError("it is there")

    async def entry() -> None:
        assert codec is not None
        await process.shared.lying(f"{codec.id}:k:{next(numbers) % KEYS}")

    async def hit() -> None:
        await empty.cache.get(f"k:{next(numbers) % KEYS}", load)

    async def peer() -> None:
        await client.get("peer")

    asked = (
        ("an entry, by the cache's own connection", entry, count),
        ("`og.cache.get`, which checks its tags and keeps it", hit, count),
        ("`GET` by redis-py", peer, count // 10),
    )
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in asked}
    for _ in range(ROUNDS):  # in turns, since others use the machine
        for name, ask, times in asked:
            found[name].append(await _timed(ask, times // ROUNDS))
    fewer, _ = await _timed(hit, count // ROUNDS, at_once=16)
    await client.aclose()
    await empty.close()
    rows = [
        [name, f"{max(rate for _, rate in each):,.0f}", f"{min(cpu for cpu, _ in each):.1f}"]
        for name, each in found.items()
    ]
    _, best = max(found[asked[1][0]], key=lambda each: each[1])
    head = [f"1 KB from the server, {AT_ONCE} at once, the best of {ROUNDS} turns", "a second", "us of CPU"]
    return "\n".join(
        [
            "",
            report.table(head, rows),
            "",
            report.verdict(
                "`og.cache.get` from the server, thousands a second", best / 1000, 60, at_least=True
            ),
            report.verdict("of CPU for each, 16 at once", fewer, 40, at_least=False, unit=" us"),
        ]
    )


async def _timed(
    ask: Callable[[], Awaitable[None]], count: int, *, at_once: int = AT_ONCE
) -> tuple[float, float]:
    """CPU of this process for one, in microseconds; how many a second."""

    async def ask_all(times: int) -> None:
        for _ in range(times):
            await ask()

    each = max(1, count // at_once)
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(asyncio.create_task(ask_all(each)) for _ in range(at_once)))
    done = each * at_once
    return (time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - began)


def _histories(operations: int) -> str:
    cache = CacheServer(application="registers")
    cache.start()
    try:
        with replicated(2, Replicated) as cluster:
            troubles = Troubles(cluster, DELAY_S)
            stage = Stage(troubles, "async", cache)
            player, by_cache, left = uvloop.run(_play(stage, cache, operations))
            judged = check(player.operations)
            failovers = troubles.failovers
    finally:
        cache.stop()
    head = [
        "three processes that share a cache",
        "operations",
        *GUARANTEES[:5],
        "failovers",
        "old entries left",
    ]
    broken = [f"{judged.broken[name]:,}" for name in GUARANTEES[:5]]
    row = [
        f"`session`, {by_cache:,} reads by the cache",
        f"{judged.operations:,}",
        *broken,
        str(failovers),
        str(left),
    ]
    return report.table(head, [row])


async def _play(stage: Stage, cache: CacheServer, operations: int) -> tuple[Player, int, int]:
    second, third = stage.another(), stage.another()
    async with stage.og, second, third:
        stage.others = [second, third]
        stage.og.queue.start()
        player = stage.player("session", Mix(keys=REGISTERS))
        troubles = itertools.cycle(_troubles(stage.troubles, cache))

        async def disturb() -> None:
            while len(player.operations) < operations:
                await asyncio.sleep(BETWEEN_S)
                await asyncio.to_thread(next(troubles))

        disturbing = asyncio.ensure_future(disturb())
        await stage.work(player, lambda: len(player.operations) >= operations and disturbing.done())
        await disturbing
        await asyncio.sleep(BETWEEN_S)
        left = sum([await _old_entries(og) for og in (stage.og, second, third)])
        return player, sum(each.node == "" and each.kind == "read" for each in player.operations), left


def _troubles(troubles: Troubles, cache: CacheServer) -> tuple[Callable[[], None], ...]:
    def restart() -> None:
        cache.kill()
        time.sleep(0.3)
        cache.start()

    return (
        restart,
        lambda: troubles.bring_back(troubles.fail_over()),
        troubles.kill_replica,
        restart,
        lambda: troubles.bring_back(troubles.fail_over(cut_off=lambda: time.sleep(0.3))),
    )


async def _old_entries(og: Any) -> int:
    """When all is over: how many registers the cache shows otherwise than the primary."""
    old = 0
    for key in range(REGISTERS):

        async def load(key: int = key) -> list[int]:
            async with og.db.read(level="strong") as tx:
                row: Any = await tx.one(READ, register_=key)
                return list(row)

        old += (await og.cache.get(f"register:{key}", load, ttl="5s"))[:2] != (await load())[:2]
    return old


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_cache", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="of the histories")
    parser.add_argument("--costs", action="store_true", help="no histories, which take a quarter of an hour")
    given = parser.parse_args()
    found = {"shared cache costs": costs(quick=given.quick)}
    if not given.costs:
        found["shared cache"] = histories(quick=given.quick, operations=given.operations)
    for name, text in found.items():
        print(text, end="\n\n")
        if given.write:
            report.write(name, text, quick=given.quick, pinned=False)
