"""What each level promises and what it costs: `python -m benchmarks.guarantees [--quick] [--write]`.

First histories: many sessions on registers, in one process, over two replicas that apply half a second late,
each operation recorded and the whole judged by chaos/guarantees.py. `session` has a million of them while
replicas die, pause and hang and the primary fails over, also with writes lost. Then the example under the
load of its own scenario, on the same kind of replicas: which share of its reads they serve.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import uvloop

from benchmarks import replica_share, report
from outgrow.chaos.guarantees import Judgement, check, lost
from outgrow.chaos.operations import GUARANTEES
from tests.support.histories import Player
from tests.support.replicas import Replicated, replicated
from tests.support.stage import Stage
from tests.support.troubles import Troubles

DELAY_S = 0.5
OPERATIONS = 1_000_000
COMPARED = 100_000
QUICK = 20_000
LEVELS = ("eventual", "bounded(1s)", "pinned(5s)")
BETWEEN_S = 4.0
"""Calm between two troubles."""

PAUSED_S = 1.5
CUT_OFF_S = 0.3


class Played(NamedTuple):
    """What one level has done."""

    level: str
    judgement: Judgement
    served_by_replicas: float
    seconds: float
    told_lost: int
    lost: int
    failovers: int


def run(*, quick: bool, operations: int = OPERATIONS) -> str:
    """The tables, as Markdown."""
    compared, long = (QUICK // 4, QUICK) if quick else (COMPARED, operations)
    with replicated(2, Replicated) as cluster:
        troubles = Troubles(cluster, DELAY_S)
        played = [_played(troubles, level, compared) for level in LEVELS]
        played.append(_played(troubles, "session", long, disturbed=True))
    return f"{_as_table(played)}\n\n{_verdict(played[-1])}\n\n{replica_share.run(quick=quick)}"


def _played(troubles: Troubles, level: str, operations: int, *, disturbed: bool = False) -> Played:
    stage = Stage(troubles)
    before, began = troubles.failovers, time.perf_counter()
    player = uvloop.run(_play(stage, level, operations, disturbed=disturbed))
    seconds = time.perf_counter() - began
    judgement = check(player.operations)
    found = Played(
        level,
        judgement,
        _served_by_replicas(player),
        seconds,
        player.refused["LostWrite"],
        len(lost(player.operations, asyncio.run(stage.last()))),
        troubles.failovers - before,
    )
    print(
        f"  {level}: {judgement.operations:,} operations in {seconds:.0f} s, {dict(judgement.broken)}",
        flush=True,
    )
    print(f"    refused: {dict(player.refused)}; {found.failovers} failovers", flush=True)
    for violation in judgement.violations[:3] if disturbed else ():
        print(f"    {violation.says}", *violation.operations, sep="\n      ", flush=True)
    return found


async def _play(stage: Stage, level: str, operations: int, *, disturbed: bool) -> Player:
    async with stage.og:
        stage.og.queue.start()
        player = stage.player(level)
        troubles = itertools.cycle(_troubles(stage.troubles)) if disturbed else None

        async def disturb() -> None:
            while troubles is not None and len(player.operations) < operations:
                await asyncio.sleep(BETWEEN_S)
                await asyncio.to_thread(next(troubles))

        disturbing = asyncio.ensure_future(disturb())
        await stage.work(player, lambda: len(player.operations) >= operations and disturbing.done())
        await disturbing
        return player


def _troubles(troubles: Troubles) -> tuple[Callable[[], None], ...]:
    """In this order, again and again."""
    return (
        troubles.kill_replica,
        lambda: troubles.bring_back(troubles.fail_over()),
        lambda: troubles.pause(lambda: time.sleep(PAUSED_S)),
        lambda: troubles.hang(lambda: time.sleep(PAUSED_S)),
        lambda: troubles.bring_back(troubles.fail_over(cut_off=lambda: time.sleep(CUT_OFF_S))),
    )


def _served_by_replicas(player: Player) -> float:
    """Of all reads. A server is the primary while it takes writes."""
    reads = replicas = 0
    primary = ""
    for each in sorted(player.operations, key=lambda operation: operation.ended):
        if each.kind == "write" and each.outcome == "ok":
            primary = each.node
        elif each.kind == "read" and each.outcome == "ok":
            reads += 1
            replicas += each.node != primary
    return replicas / max(reads, 1)


def _as_table(played: list[Played]) -> str:
    head = [
        "level",
        "operations",
        *(each for each in GUARANTEES[:5]),
        "reads at replicas",
        "failovers",
        "writes lost, sessions told",
    ]
    rows = [
        [
            f"`{each.level}`",
            f"{each.judgement.operations:,}",
            *(f"{each.judgement.broken[name]:,}" for name in GUARANTEES[:5]),
            f"{100 * each.served_by_replicas:.1f}%",
            str(each.failovers),
            f"{each.lost:,}, {each.told_lost:,}",
        ]
        for each in played
    ]
    return report.table(head, rows)


def _verdict(session: Played) -> str:
    broken = sum(session.judgement.broken.values())
    what = f"violations at `session` in {session.judgement.operations:,} operations"
    return f"- {what}: **{broken:,}**, target 0: {'met' if session.judgement.held else 'MISSED'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guarantees", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short, to see that it works")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help="at `session`; 1,000,000")
    given = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}", flush=True)
    found = run(quick=given.quick, operations=given.operations)
    print(found)
    if given.write:
        report.write("guarantees", found, quick=given.quick, pinned=False)
