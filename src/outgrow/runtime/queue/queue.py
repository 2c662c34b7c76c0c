"""og.queue: declare tasks, and enqueue them with the transaction that calls for them.

@og.queue.task(attempts=5)
async def index_article(article_id: int) -> None: ...

async with og.db.write() as tx:
    ...
    og.queue.enqueue(index_article, article.id)    # delivered if and only if this commits
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, overload

import msgspec

from outgrow import endpoints
from outgrow.errors import Misuse, OutsideUnitOfWork
from outgrow.runtime import scope as request
from outgrow.runtime.events import Events
from outgrow.runtime.queue.worker import Adopt, Outbox, Pace, Worker
from outgrow.runtime.scope import Message

P = ParamSpec("P")
R = TypeVar("R")

TOPIC = "tasks"
_RESERVED = frozenset({"delay_s", "key"})


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
        self.signature = inspect.signature(function)
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class Call(NamedTuple):
    """The body of a message, a JSON array: which task, with what."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]


class Server(Outbox, Protocol):
    """What holds the messages, and can open a transaction for one."""

    @property
    def database(self) -> Any: ...


class Queue:
    """The queue of one application. Its worker runs in the application's own process and event loop."""

    def __init__(
        self,
        server: Server,
        settings: endpoints.Queue,
        events: Events,
        *,
        adopt: Adopt,
        pace: Pace = Pace(),  # noqa: B008, it is frozen
    ) -> None:
        self._server = server
        self._workers = settings.workers
        self._tasks: dict[str, Task[..., Any]] = {}
        self._worker = Worker(
            server, self._call_in, events, adopt, topic=TOPIC, concurrency=settings.workers, pace=pace
        )
        events.message_staged.subscribe(self._worker.wake)

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, function: None = None, /, *, name: str | None = None, attempts: int = 5, timeout_s: float = 60.0
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
        """Declare a function as a task; without a name it has the function's, with its module.

        The name must stay the same while messages for it wait. `attempts` counts the first one, too.
        Raises Misuse when another task has this name, or a parameter one that enqueue() needs itself.
        """

        def declare(called: Callable[..., Any]) -> Task[..., Any]:
            full = name or f"{called.__module__}.{called.__qualname__}"
            if full in self._tasks:
                raise Misuse(f"there are two tasks named {full}", hint="give one of them name=...")
            declared = Task(called, full, attempts, timeout_s)
            for reserved in _RESERVED & declared.signature.parameters.keys():
                raise Misuse(
                    f"{full}: a task has no parameter {reserved!r}", hint="enqueue() takes it; rename it"
                )
            self._tasks[full] = declared
            return declared

        return declare if function is None else declare(function)

    def enqueue(
        self, task: Task[P, Any], /, *args: Any, delay_s: float = 0.0, key: str | None = None, **kwargs: Any
    ) -> None:
        """Have the task run after this write block has committed, not before `delay_s` have passed.

        Two messages with the same `key` of which none has been handed to a worker are one: it runs
        when the earlier of them was due, with the arguments of the later. Arguments travel as JSON.
        Raises OutsideUnitOfWork outside a write block, Misuse for arguments that the task does not
        take or that JSON would change.
        """
        unit = request.unit_of_work.get()
        if unit is None:
            raise OutsideUnitOfWork(f"enqueue({task!r})")
        unit.stage(Message(TOPIC, self._encode(task, args, kwargs), delay_s, key))

    def message(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Message:
        """What enqueue() would store, for whoever stages it."""
        return Message(TOPIC, self._encode(task, args, kwargs))

    async def send(
        self, task: Task[P, Any], /, *args: Any, delay_s: float = 0.0, key: str | None = None, **kwargs: Any
    ) -> None:
        """The same with a write block of its own."""
        async with self._server.database.write():
            self.enqueue(task, *args, delay_s=delay_s, key=key, **kwargs)

    def start(self) -> None:
        """Begin to work on messages, if this process is to."""
        if self._workers:
            self._worker.start()

    async def close(self) -> None:
        """Claim no more, let what runs end within a few seconds, give back the rest."""
        await self._worker.close()

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Wait until no message is due or running: for tests and scripts.

        Raises TimeoutError, and Misuse when no worker has been started in this process.
        """
        if not self._worker.started:
            raise Misuse(
                "no worker runs in this process", hint="call og.queue.start() first; is queue.workers 0?"
            )
        await self._worker.drain(timeout_s)

    def figures(self) -> dict[str, int]:
        """Messages in this process by state."""
        return self._worker.figures()

    def _call_in(self, body: bytes) -> tuple[Task[..., Any], list[Any], dict[str, Any]]:
        call = msgspec.json.decode(body, type=Call)
        task = self._tasks.get(call.task)
        if task is None:
            raise Misuse(
                f"no task is named {call.task}",
                hint="is the module that declares it imported by the application?",
            )
        return task, call.args, call.kwargs

    def _encode(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        if not isinstance(task, Task) or self._tasks.get(task.name) is not task:
            raise Misuse(
                f"{task!r} is no task of this queue", hint="declare the function with @og.queue.task"
            )
        try:
            task.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Misuse(f"{task.name}{task.signature}: {error}") from None
        body = _unchanged_json([task.name, list(args), kwargs])
        if body is None:
            named = [*enumerate(args), *kwargs.items()]
            wrong = [
                f"{name} ({type(value).__name__})" for name, value in named if _unchanged_json(value) is None
            ]
            raise Misuse(
                f"{task.name}: JSON would refuse or change argument {', '.join(wrong)}",
                hint="pass ids, numbers, texts, lists and dicts; load the rest inside the task",
            )
        return body


def _unchanged_json(value: Any) -> bytes | None:
    """The value as JSON, if it comes back as it is."""
    try:
        body = msgspec.json.encode(value)
        return body if msgspec.json.decode(body) == value else None
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None
