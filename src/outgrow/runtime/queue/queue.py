"""og.queue: declare tasks, and enqueue them with the transaction that calls for them.

    @og.queue.task(attempts=5)
    async def index_article(article_id: int) -> None: ...

    async with og.db.write() as tx:
        ...
        og.queue.enqueue(index_article, article.id)    # delivered if and only if this commits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, overload

import msgspec

from outgrow import endpoints
from outgrow.errors import Misuse, OutsideUnitOfWork
from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
from outgrow.runtime.queue.worker import Adopt, Outbox, Worker
from outgrow.runtime.scope import Message

P = ParamSpec("P")
R = TypeVar("R")

TOPIC = "tasks"


class Task(Generic[P, R]):
    """A function that the queue can run. Calling it runs it here and now.

    It is called at least once for each message: again after a crash, or when it raises, at most
    `attempts` times; so it must do no harm when repeated. `timeout_s` ends an async function; a plain
    one runs in a thread, which cannot be ended.
    """

    def __init__(self, function: Callable[P, R], name: str, attempts: int, timeout_s: float) -> None:
        self.function = function
        self.name = name
        self.attempts = attempts
        self.timeout_s = timeout_s
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class Call(NamedTuple):
    """The body of a message: which task, with what."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]


class Server(Outbox, Protocol):
    """What holds the messages, and can open a transaction for one."""

    @property
    def database(self) -> Any: ...


class Queue:
    """The queue of one application. Its worker runs in the application's own process and event loop."""

    def __init__(self, server: Server, settings: endpoints.Queue, events: Events, *, adopt: Adopt) -> None:
        self._server = server
        self._settings = settings
        self._events = events
        self._tasks: dict[str, Task[..., Any]] = {}
        self._worker = Worker(server, self.run_of, events, adopt, topic=TOPIC, concurrency=settings.workers)
        events.message_staged.subscribe(self._worker.wake)

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, name: str | None = None, attempts: int = 5, timeout_s: float = 60.0
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        attempts: int = 5,
        timeout_s: float = 60.0,
    ) -> Any:
        """Declare a function as a task. Its name must stay the same while messages for it wait.

        Raises Misuse when another task has this name.
        """

        def declare(called: Callable[..., Any]) -> Task[..., Any]:
            full = name or f"{called.__module__}.{called.__qualname__}"
            if full in self._tasks:
                raise Misuse(f"there are two tasks named {full}", hint="give one of them name=...")
            task = self._tasks[full] = Task(called, full, attempts, timeout_s)
            return task

        return declare if function is None else declare(function)

    def enqueue(
        self, task: Task[P, Any], /, *args: Any, delay_s: float = 0.0, key: str | None = None, **kwargs: Any
    ) -> None:
        """Have the task run after this write block has committed, not before `delay_s` have passed.

        Two undelivered messages with the same `key` are one. Arguments travel as JSON. Raises
        OutsideUnitOfWork outside a write block, Misuse for arguments that JSON would change.
        """
        unit = request.unit_of_work.get()
        if unit is None:
            raise OutsideUnitOfWork(f"enqueue({task!r})")
        unit.stage(Message(TOPIC, self._encode(task, args, kwargs), delay_s, key))

    async def send(
        self, task: Task[P, Any], /, *args: Any, delay_s: float = 0.0, key: str | None = None, **kwargs: Any
    ) -> None:
        """The same with a write block of its own."""
        async with self._server.database.write():
            self.enqueue(task, *args, delay_s=delay_s, key=key, **kwargs)

    def start(self) -> None:
        """Begin to work on messages, if this process is to."""
        if self._settings.workers:
            self._worker.start()

    async def close(self) -> None:
        """Claim no more, finish what runs within a few seconds, give back the rest."""
        await self._worker.close()

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Wait until nothing is ready or running: for tests and scripts. Raises TimeoutError."""
        await self._worker.drain(timeout_s)

    def run_of(self, body: bytes) -> tuple[Task[..., Any], list[Any], dict[str, Any]]:
        """The task and arguments in a message. Raises Misuse when this process has no such task."""
        call = msgspec.json.decode(body, type=Call)
        task = self._tasks.get(call.task)
        if task is None:
            raise Misuse(f"no task is named {call.task}", hint="is the module that declares it imported by the application?")
        return task, call.args, call.kwargs

    def _encode(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if not isinstance(task, Task) or self._tasks.get(task.name) is not task:
            raise Misuse(f"{task!r} is no task of this queue", hint="declare the function with @og.queue.task")
        for name, value in [*((str(index), value) for index, value in enumerate(args)), *kwargs.items()]:
            if not _survives_json(value):
                raise Misuse(
                    f"{task.name}: argument {name} is a {type(value).__name__}, which JSON would change or refuse",
                    hint="pass ids, numbers, texts, lists and dicts; load the rest inside the task",
                )
        return msgspec.json.encode(Call(task.name, list(args), kwargs))


def _survives_json(value: Any) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError, OverflowError):
        return False
