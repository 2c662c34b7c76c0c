"""Write-behind: the order of each key, whoever commits when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from outgrow.errors import Unavailable
from outgrow.runtime import scope as request
from outgrow.runtime.application import Outgrow
from outgrow.runtime.cache.behind import WriteBehind
from outgrow.runtime.database.migrate import migrate
from tests.support.behind import ALL, CREATE, counts, outgrow
from tests.support.postgres import PostgresServer

CLEAR = ("DELETE FROM outgrow_buffer", "DELETE FROM counts")


class Machine(RuleBasedStateMachine):
    """Transactions that stay open while others put, and a flush at any moment.

    Of all puts of a key that have been committed the one whose transaction began to write last is shown.
    """

    def __init__(self, runner: asyncio.Runner, og: Outgrow, strategy: WriteBehind[str, int]) -> None:
        super().__init__()
        self.run, self.og, self.strategy = runner.run, og, strategy
        self.n = 0
        self.open: list[tuple[AsyncExitStack, Any, dict[str, int]]] = []
        self.committed: dict[str, int] = {}

    @initialize()
    def begin_anew(self) -> None:
        async def clear() -> None:
            async with self.og.db.write() as tx:
                for text in CLEAR:
                    await tx.execute(sa.text(text))

        self.run(clear())
        self.og.cache.clear()

    def teardown(self) -> None:
        for stack, _, _ in self.open:
            self.run(stack.aclose())

    keys = st.sampled_from("ab")

    def next(self) -> int:
        self.n += 1
        return self.n

    def settle(self, put: dict[str, int]) -> None:
        for key, n in put.items():
            self.committed[key] = max(self.committed.get(key, 0), n)

    @rule(key=keys)
    def put(self, key: str) -> None:
        n = self.next()
        self.run(self.strategy.put(key, n))
        self.settle({key: n})

    @precondition(lambda self: len(self.open) < 3)
    @rule(key=keys)
    def put_and_stay_open(self, key: str) -> None:
        n = self.next()

        async def put() -> tuple[AsyncExitStack, Any]:
            stack = AsyncExitStack()
            tx = await stack.enter_async_context(self.og.db.write())
            await self.strategy.put(key, n)
            request.unit_of_work.set(None)
            return stack, tx

        stack, tx = self.run(put())
        self.open.append((stack, tx, {key: n}))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2))
    def commit(self, which: int) -> None:
        stack, _, put = self.open.pop(which % len(self.open))
        self.run(stack.aclose())
        self.settle(put)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 2))
    def roll_back(self, which: int) -> None:
        stack, _, _ = self.open.pop(which % len(self.open))

        async def fail() -> None:
            error = ZeroDivisionError()
            assert not await stack.__aexit__(ZeroDivisionError, error, None)

        self.run(fail())

    @rule(batch=st.integers(1, 3))
    def flush(self, batch: int) -> None:
        self.strategy.flusher._count = batch
        self.run(self.strategy.flush())

    @invariant()
    def the_newest_is_shown(self) -> None:
        for key in "ab":
            assert self.run(self.strategy.get(key)) == self.committed.get(key, 0)

    @invariant()
    def what_is_stored_is_what_is_shown_when_all_is(self) -> None:
        if not self.open:
            self.run(self.strategy.flush())
            assert self.run(stored(self.og)) == self.committed


async def stored(og: Outgrow) -> dict[str, int]:
    async with og.db.read() as tx:
        return {row.name: row.n for row in await tx.all(ALL)}


@pytest.fixture
def machine(postgres_server: PostgresServer) -> Iterator[Callable[[], Machine]]:
    url = postgres_server.create_database()
    with asyncio.Runner() as runner:
        og = outgrow(url)

        async def begin() -> WriteBehind[str, int]:
            await migrate(url, None)
            await og.__aenter__()
            async with og.db.write() as tx:
                await tx.execute(CREATE)
            return counts(og)

        strategy = runner.run(begin())
        try:
            yield lambda: Machine(runner, og, strategy)
        finally:
            runner.run(og.__aexit__(None, None, None))


def test_what_is_put_after_an_open_transaction_waits_for_it(machine: Callable[[], Machine]) -> None:
    steps = machine()
    steps.begin_anew()
    steps.put_and_stay_open("a")
    steps.put("a")
    steps.flush(3)
    steps.commit(0)  # if the later one had been taken, this one would be shown, and stored after it
    steps.the_newest_is_shown()
    steps.what_is_stored_is_what_is_shown_when_all_is()


async def test_one_flusher_at_a_time_and_another_when_it_is_gone(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()
    await migrate(url, None)
    async with (one := outgrow(url)), (other := outgrow(url)):
        async with one.db.write() as tx:
            await tx.execute(CREATE)
        strategy, theirs = counts(one), counts(other)
        await strategy.put("a", 1)
        with pytest.raises(Unavailable):
            async with one.db.write() as tx:
                assert await one.buffer.take(tx, "counts", 10)
                pid = await tx.value(sa.select(sa.func.pg_backend_pid()))
                await strategy.put("a", 2)  # in the transaction that is about to be lost
                request.unit_of_work.set(None)  # what follows is another process
                await theirs.put("a", 3)
                await theirs.flush()
                assert await stored(other) == {}
                async with other.db.write() as killer:
                    await killer.value(sa.select(sa.func.pg_terminate_backend(pid)))
                await until_gone(other, pid)
        await theirs.flush()
        assert await stored(other) == {"a": 3}


async def until_gone(og: Outgrow, pid: int) -> None:
    left = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    async with asyncio.timeout(10):
        while True:
            async with og.db.read() as tx:
                if not await tx.value(left, pid=pid):
                    return
            await asyncio.sleep(0.01)


def test_the_order_of_open_transactions(machine: Callable[[], Machine]) -> None:
    few = settings(
        max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_machine(machine, settings=few)  # type: ignore[arg-type]


@pytest.fixture
async def three(database_url: str) -> AsyncIterator[list[Outgrow]]:
    """Three processes without a cache, so that every get asks the database."""
    await migrate(database_url, None)
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(3):
            og = outgrow(database_url)
            og.cache.enabled = False
            opened.append(await stack.enter_async_context(og))
        async with opened[0].db.write() as tx:
            await tx.execute(CREATE)
        yield opened


async def test_no_reader_sees_a_value_come_back(three: list[Outgrow]) -> None:
    random.seed(11)
    strategies = [counts(og, every=0.001, batch=3) for og in three]
    for og in three:
        og.flushers.start()
    n, stop = 0, False

    async def write(og: Outgrow, strategy: WriteBehind[str, int], mine: dict[str, int]) -> None:
        nonlocal n
        while not stop:
            n += 1
            key, value = random.choice("ab"), n
            if random.random() < 0.3:
                async with og.db.write():
                    await strategy.put(key, value)
                    await asyncio.sleep(random.choice([0, 0.01]))
            else:
                await strategy.put(key, value)
            assert await strategy.get(key) >= 0
            mine[key] = value
            await asyncio.sleep(0)

    async def watch(strategy: WriteBehind[str, int], key: str) -> int:
        seen, last = set(), 0
        while not stop:
            now = await strategy.get(key)
            assert now == last or now not in seen, (key, now)
            seen.add(now)
            last = now
            await asyncio.sleep(0)
        return len(seen)

    mine: list[dict[str, int]] = [{} for _ in three]
    writers = [write(*each) for each in zip(three, strategies, mine, strict=True)]
    tasks = [asyncio.create_task(each) for each in writers]
    tasks += [asyncio.create_task(watch(strategies[i % 3], "ab"[i % 2])) for i in range(4)]  # type: ignore[arg-type]
    async with asyncio.timeout(30):
        while n < 250 and not any(task.done() for task in tasks):
            await asyncio.sleep(0.01)
    stop = True
    counted = await asyncio.gather(*tasks)
    assert sum(each or 0 for each in counted[3:]) > 10
    last = {key: await strategies[0].get(key) for key in "ab"}
    async with asyncio.timeout(10):
        while await stored(three[0]) != last:
            await asyncio.sleep(0.01)
    assert all(value in [each.get(key) for each in mine] for key, value in last.items())
