"""One suite for every database that holds the queue: a message is promised the same on all of them."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from outgrow.errors import DatabaseError, Misuse, OutsideUnitOfWork, UniqueViolation
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Signer
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.database.outbox import Outbox
from outgrow.runtime.database.schema import outbox as table
from outgrow.runtime.database.staging import put_once
from outgrow.runtime.events import Events
from outgrow.runtime.queue import Queue
from outgrow.runtime.queue.worker import Pace
from outgrow.runtime.scope import Scope
from tests.support.tasks import open_database, open_queue

MESSAGES = sa.select(table).order_by(table.c.id)
SPEND_ATTEMPTS = sa.update(table).values(attempts=sa.bindparam("spent"))
SIGNER = Signer({1: b"0123456789abcdef"})


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def db(database_url: str, events: Events) -> AsyncIterator[Database]:
    await migrate(database_url, None)
    database = open_database(database_url, events, headers)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def queue(db: Database, events: Events) -> AsyncIterator[Queue]:
    opened = open_queue(db, events, adopt=adopt)
    yield opened
    await opened.close()


@pytest.fixture
def finished(events: Events) -> list[tuple[str, int]]:
    """Outcome and attempt of each delivery."""
    heard: list[tuple[str, int]] = []
    events.message_finished.subscribe(
        lambda task, outcome, seconds, attempt: heard.append((outcome, attempt))
    )
    return heard


def headers() -> str:
    scope = request.current.get()
    return msgspec.json.encode({"bookmark": SIGNER.encode(scope.bookmark)} if scope else {}).decode()


def adopt(sent: dict[str, str]) -> Scope:
    return Scope(SIGNER.decode(sent["bookmark"]) if "bookmark" in sent else None, trace_id="adopted")


async def waiting(db: Database) -> list[Any]:
    async with db.read() as tx:
        return await tx.all(MESSAGES)


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


# Enqueueing


async def test_delivered_if_and_only_if_the_transaction_commits(db: Database, queue: Queue) -> None:
    seen: list[object] = []

    @queue.task(name="see")
    async def see(what: object, *, times: int = 1) -> None:
        seen.append((what, times))

    queue.start()
    async with db.write() as tx:
        queue.enqueue(see, {"text": "müsli", "list": [1, 2.5, None, True]}, times=2)
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                queue.enqueue(see, "undone by the savepoint")
                raise ZeroDivisionError
        await asyncio.sleep(0.1)
        assert seen == []
    with pytest.raises(ZeroDivisionError):
        async with db.write():
            queue.enqueue(see, "rolled back")
            raise ZeroDivisionError
    await queue.send(see, "sent")
    await queue.drain()
    assert sorted(seen, key=str) == sorted(
        [({"text": "müsli", "list": [1, 2.5, None, True]}, 2), ("sent", 1)], key=str
    )
    assert await waiting(db) == []


async def test_a_transaction_that_has_failed_delivers_nothing(db: Database, queue: Queue) -> None:
    task = queue.task(name="nothing")(lambda: None)
    with pytest.raises(DatabaseError):
        async with db.write() as tx:
            queue.enqueue(task)
            with pytest.raises(DatabaseError, match="nowhere"):
                await tx.execute(sa.text("SELECT * FROM nowhere"))
    assert await waiting(db) == []


async def test_enqueue_outside_a_write_block_is_told(db: Database, queue: Queue) -> None:
    task = queue.task(name="t")(lambda: None)
    with pytest.raises(OutsideUnitOfWork):
        queue.enqueue(task)
    async with db.read():
        with pytest.raises(OutsideUnitOfWork):
            queue.enqueue(task)


async def test_a_delay_is_waited_for(db: Database, queue: Queue, finished: list[Any]) -> None:
    task = queue.task(name="t")(lambda: None)
    queue.start()
    async with db.write():
        queue.enqueue(task, delay_s=0.3)
    await asyncio.sleep(0.15)
    assert finished == []
    await until(lambda: finished == [("done", 1)])


async def test_a_plain_function_runs_in_a_thread_with_its_scope(queue: Queue) -> None:
    seen: list[object] = []

    @queue.task
    def plain(number: int) -> None:
        scope = request.current.get()
        assert scope is not None
        seen.append((threading.current_thread() is threading.main_thread(), scope.trace_id, number))

    queue.start()
    await queue.send(plain, 7)
    await queue.drain()
    assert seen == [(False, "adopted", 7)]
    assert (
        plain.name
        == f"{__name__}.{test_a_plain_function_runs_in_a_thread_with_its_scope.__name__}.<locals>.plain"
    )


async def test_a_job_sees_what_its_sender_had_written(db: Database, queue: Queue) -> None:
    seen: list[object] = []

    @queue.task(name="see")
    async def see() -> None:
        scope = request.current.get()
        assert scope is not None
        seen.append(scope.bookmark.position("0"))
        assert scope.bookmark.tag_floor("article:1") is not None

    scope = Scope()
    token = request.current.set(scope)
    async with db.write() as tx:
        await tx.execute(sa.text("CREATE TABLE fresh (id integer)"))
        tx.after_commit(lambda position: None, ("article:1",))
    await queue.send(see)
    sent_at = scope.bookmark.position("0")
    request.current.reset(token)
    queue.start()
    await queue.drain()
    assert seen[0] > sent_at  # type: ignore[operator]


# Keys


async def test_messages_with_one_key_that_wait_are_one(db: Database, queue: Queue) -> None:
    seen: list[int] = []
    task = queue.task(name="see")(seen.append)
    other = queue.task(name="other")(seen.append)
    async with db.write():
        queue.enqueue(task, 1, key="k", delay_s=3600)
        queue.enqueue(task, 2, key="other key")
        queue.enqueue(other, 3)
        queue.enqueue(other, 4)
    async with db.write():
        queue.enqueue(task, 5, key="k")
        queue.enqueue(task, 6, key="k", delay_s=3600)
    queue.start()
    await queue.drain()
    assert sorted(seen) == [2, 3, 4, 6]  # due with the earlier, the arguments of the later


async def test_a_message_is_not_swallowed_by_one_that_runs_already(queue: Queue) -> None:
    """The running task may have read before the second message's write."""
    seen: list[int] = []
    running, gate = asyncio.Event(), asyncio.Event()

    @queue.task(name="see")
    async def see(number: int) -> None:
        running.set()
        await gate.wait()
        seen.append(number)

    queue.start()
    await queue.send(see, 1, key="k")
    await running.wait()
    await queue.send(see, 2, key="k")
    gate.set()
    await queue.drain()
    assert sorted(seen) == [1, 2]


async def test_a_waiting_message_is_not_claimed_while_another_with_its_key_commits(
    db: Database, queue: Queue
) -> None:
    if db.engine == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    task = queue.task(name="t")(lambda number: None)
    await queue.send(task, 1, key="k")
    (row,) = await waiting(db)
    again = {name: row[name] for name in ("topic", "headers", "dedupe", "available_at", "created_at")}
    store = Outbox(db)
    async with db.write() as tx:
        await tx.execute(put_once("postgres"), id=1, body=b"second", **again)
        async with asyncio.timeout(1):
            token = request.unit_of_work.set(None)
            assert await asyncio.create_task(store.claim("tasks", 10, "me", 1.0)) == []
            request.unit_of_work.reset(token)
    assert [message.body for message in await store.claim("tasks", 10, "me", 1.0)] == [b"second"]


async def test_an_id_that_is_taken_is_an_error_and_no_lost_message(db: Database, queue: Queue) -> None:
    await queue.send(queue.task(name="t")(lambda: None))
    (row,) = await waiting(db)
    again = {
        name: row[name] for name in ("id", "topic", "headers", "body", "dedupe", "available_at", "created_at")
    }
    with pytest.raises(UniqueViolation):
        async with db.write() as tx:
            await tx.execute(put_once(db.engine), **again)


# Failures


async def test_a_failure_is_tried_again_and_its_reason_kept(
    db: Database, queue: Queue, finished: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    reasons: list[str] = []

    @queue.task(name="see")
    async def see() -> None:
        if len(finished) < 2:
            raise OSError("the disk is away")
        reasons.extend(row.error for row in await waiting(db))

    queue.start()
    await queue.send(see)
    await until(lambda: len(finished) == 3)
    await queue.drain()
    assert finished == [("retry", 1), ("retry", 2), ("done", 3)]
    assert "OSError: the disk is away" in reasons[0]
    assert "see failed at attempt 1 of 5: the disk is away" in caplog.text
    assert await waiting(db) == []


async def test_after_its_attempts_it_is_buried(db: Database, queue: Queue, finished: list[Any]) -> None:
    @queue.task(name="see", attempts=2)
    async def see() -> None:
        raise OSError("no\0pe")

    queue.start()
    await queue.send(see, key="k")
    await until(lambda: len(finished) == 2)
    await queue.drain()
    await asyncio.sleep(0.3)
    assert finished == [("retry", 1), ("dead", 2)]
    (row,) = await waiting(db)
    assert (row.state, row.attempts, row.leased_until) == ("dead", 2, None)
    assert "OSError" in row.error


async def test_a_task_that_takes_too_long_is_ended(db: Database, queue: Queue, finished: list[Any]) -> None:
    ended: list[bool] = []

    @queue.task(name="see", attempts=1, timeout_s=0.05)
    async def see() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    queue.start()
    await queue.send(see)
    await until(lambda: finished == [("dead", 1)])
    assert ended == [True]
    await queue.close()
    (row,) = await waiting(db)
    assert "it ran for more than 0.05 s" in row.error


async def test_a_task_that_cancels_itself_has_failed(queue: Queue, finished: list[Any]) -> None:
    @queue.task(name="see", attempts=2)
    async def see() -> None:
        raise asyncio.CancelledError

    queue.start()
    await queue.send(see)
    await until(lambda: finished == [("retry", 1), ("dead", 2)])


async def test_a_task_of_another_version_waits_for_it(
    db: Database, events: Events, queue: Queue, finished: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    newer = open_queue(db, events)
    await newer.send(newer.task(name="new")(seen.append), 1)
    queue.start()
    await until(lambda: ("retry", 1) in finished)
    await queue.close()
    assert "no task is named new" in caplog.text
    newer.start()
    await until(lambda: seen == [1])
    await newer.close()


async def test_what_kills_its_worker_is_buried_at_last(
    db: Database, queue: Queue, finished: list[Any]
) -> None:
    await queue.send(queue.task(name="see", attempts=3)(lambda: pytest.fail("it is not to run")))
    async with db.write() as tx:
        await tx.execute(SPEND_ATTEMPTS, spent=3)
    queue.start()
    await until(lambda: finished == [("dead", 4)])
    await queue.close()
    (row,) = await waiting(db)
    assert "each of its 3 attempts ended with its worker's death" in row.error


async def test_broken_headers_do_not_hold_a_message_back(
    db: Database, queue: Queue, finished: list[Any]
) -> None:
    await queue.send(queue.task(name="see")(lambda: None))
    async with db.write() as tx:
        await tx.execute(sa.text("UPDATE outgrow_outbox SET headers = 'broken'"))
    queue.start()
    await until(lambda: finished == [("done", 1)])


# Leases


async def test_a_lease_that_is_over_is_delivered_again(
    db: Database, queue: Queue, finished: list[Any]
) -> None:
    await queue.send(queue.task(name="see")(lambda: None))
    (claimed,) = await Outbox(db).claim("tasks", 10, "a worker that dies", 0.3)
    before = time.monotonic()
    queue.start()
    await until(lambda: finished == [("done", 2)])
    assert time.monotonic() - before > 0.25, "delivered while the lease was held"
    assert await Outbox(db).acknowledge([claimed.id], "a worker that dies") == 0


async def test_who_has_lost_a_lease_changes_nothing(db: Database, queue: Queue) -> None:
    await queue.send(queue.task(name="see")(lambda: None))
    store = Outbox(db)
    (first,) = await store.claim("tasks", 10, "first", -1.0)
    (second,) = await store.claim("tasks", 10, "second", 60.0)
    assert (first.id, first.attempts, second.attempts) == (second.id, 1, 2)
    assert await store.extend([first.id], "first", 60.0) == 0
    assert await store.release(first.id, "first", delay_s=0, reason="") == 0
    assert await store.bury(first.id, "first", reason="") == 0
    assert await store.give_back([first.id], "first") == 0
    assert await store.claim("tasks", 10, "third", 60.0) == []
    assert await store.due_in("tasks") is None
    assert await store.extend([first.id], "second", 60.0) == 1
    assert await store.acknowledge([first.id], "second") == 1
    assert await store.acknowledge([], "second") == 0


async def test_a_long_task_keeps_its_lease(
    db: Database, events: Events, queue: Queue, finished: list[Any]
) -> None:
    pace = Pace(lease_s=0.3, poll_s=(0.02, 0.05), close_s=1.0)
    workers = [open_queue(db, events, pace=pace) for _ in range(2)]
    begun: list[int] = []

    async def long() -> None:
        begun.append(1)
        await asyncio.sleep(1.0)

    for worker in workers:
        task = worker.task(name="long")(long)
        worker.start()
    await worker.send(task)
    await until(lambda: finished == [("done", 1)])
    for worker in workers:
        await worker.close()
    assert begun == [1]


async def test_workers_share_the_messages(db: Database, events: Events, finished: list[Any]) -> None:
    seen: list[tuple[int, int]] = []
    workers = [open_queue(db, events, workers=8) for _ in range(3)]

    def declare(index: int) -> Any:
        async def see(number: int) -> None:
            seen.append((number, index))
            await asyncio.sleep(0.001)

        return workers[index].task(name="see")(see)

    tasks = [declare(index) for index in range(3)]
    async with db.write():
        for number in range(300):
            workers[0].enqueue(tasks[0], number)
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.drain() for worker in workers))
    for worker in workers:
        await worker.close()
    assert sorted(number for number, _ in seen) == list(range(300))
    assert len({index for _, index in seen}) > 1
    assert await waiting(db) == []


# Closing


async def test_close_lets_what_runs_end_and_gives_back_the_rest(
    db: Database, events: Events, finished: list[Any]
) -> None:
    queue = open_queue(db, events, workers=2)
    seen: list[int] = []
    running = asyncio.Event()

    @queue.task(name="see")
    async def see(number: int) -> None:
        running.set()
        await asyncio.sleep(0.2)
        seen.append(number)

    async with db.write():
        for number in range(10):
            queue.enqueue(see, number)
    queue.start()
    await running.wait()
    await queue.close()
    assert seen == [0, 1]
    assert [(row.attempts, row.lease, row.leased_until) for row in await waiting(db)] == [(0, None, None)] * 8
    queue.start()  # and again
    await queue.drain()
    await queue.close()
    assert sorted(seen) == list(range(10))
    assert await waiting(db) == []


async def test_close_cancels_what_does_not_end_and_gives_it_back(
    db: Database, events: Events, finished: list[Any]
) -> None:
    queue = open_queue(db, events, pace=Pace(close_s=0.1))
    running = asyncio.Event()

    @queue.task(name="see")
    async def see() -> None:
        running.set()
        await asyncio.sleep(60)

    queue.start()
    await queue.send(see)
    await running.wait()
    async with asyncio.timeout(2):
        await queue.close()
    assert [(row.attempts, row.lease, row.state) for row in await waiting(db)] == [(0, None, "ready")]
    assert finished == []
    await queue.close()


async def test_no_worker_no_work(db: Database, events: Events) -> None:
    queue = open_queue(db, events, workers=0)
    queue.start()
    await queue.send(queue.task(name="see")(lambda: pytest.fail("it is not to run")))
    with pytest.raises(Misuse, match="no worker runs in this process"):
        await queue.drain()
    await queue.close()
    assert len(await waiting(db)) == 1
