"""Declaring tasks and putting their calls into messages: what needs no database."""

import datetime
import enum
import math
from collections.abc import Callable
from typing import Any, Self

import msgspec
import pytest

from outgrow import endpoints
from outgrow.errors import Misuse
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Position
from outgrow.runtime.events import Events
from outgrow.runtime.queue import Queue, Task
from outgrow.runtime.scope import Message, Scope


class Block:
    """A write block as the queue sees it (scope.UnitOfWork)."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def stage(self, message: Message) -> None:
        self.messages.append(message)

    def after_commit(self, effect: Any, tags: tuple[str, ...] = (), *, certain: bool = False) -> None:
        effect(Position(1, 1))

    def announced_by(self, announcer: request.Announcer) -> None:
        raise AssertionError("nobody shares a cache here")

    def __enter__(self) -> Self:
        self.token = request.unit_of_work.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        request.unit_of_work.reset(self.token)


@pytest.fixture
def queue() -> Queue:
    nowhere: Any = None  # nothing here reaches the server
    return Queue(nowhere, endpoints.Queue(), Events(), adopt=lambda headers: Scope())


def resize(picture: int, width: int = 100, *, name: Any = None) -> int:
    """Make it smaller."""
    return picture * width


class Colour(enum.Enum):
    RED = "red"


def test_a_task_is_named_after_its_module_and_can_be_called(queue: Queue) -> None:
    task = queue.task(resize)
    assert isinstance(task, Task)
    assert task.name == f"{__name__}.resize"
    assert task(2, width=3) == 6
    assert task.__doc__ == "Make it smaller."
    assert repr(task) == f"<task {__name__}.resize>"
    assert queue.task(name="small", attempts=2, timeout_s=1.5)(resize).name == "small"


def test_two_tasks_of_one_name_are_told(queue: Queue) -> None:
    queue.task(resize)
    with pytest.raises(Misuse, match=r"two tasks named .*resize"):
        queue.task(resize)


@pytest.mark.parametrize("store", [lambda key: None, lambda where, *, delay_s=1: None])
def test_parameters_that_enqueue_needs_itself_are_told(queue: Queue, store: Callable[..., None]) -> None:
    with pytest.raises(Misuse, match=r"a task has no parameter '(key|delay_s)'"):
        queue.task(name="store")(store)


def test_a_call_becomes_a_message(queue: Queue) -> None:
    task = queue.task(name="resize")(resize)
    with Block() as block:
        queue.enqueue(task, 7, name={"a": [1, "ü", None]}, delay_s=2.5, key="k")
    (message,) = block.messages
    assert msgspec.json.decode(message.body) == ["resize", [7], {"name": {"a": [1, "ü", None]}}]
    assert message[2:] == (2.5, "k")


@pytest.mark.parametrize(
    "value",
    [
        object(),
        (1, 2),
        {1, 2},
        {1: "a"},
        b"bytes",
        datetime.datetime(2026, 1, 1),
        Colour.RED,
        math.nan,
        "\ud800",
        msgspec.UNSET,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_would_change_or_refuse_is_told(queue: Queue, value: object) -> None:
    task = queue.task(name="resize")(resize)
    with Block() as block, pytest.raises(Misuse, match=rf"argument name \({type(value).__name__}\)"):
        queue.enqueue(task, 1, name=value)
    assert block.messages == []


def test_a_circle_is_told(queue: Queue) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with Block(), pytest.raises(Misuse, match=r"argument 0 \(list\)"):
        queue.enqueue(queue.task(resize), circle)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"colour": 3})])
def test_arguments_that_the_task_does_not_take_are_told(queue: Queue, args: Any, kwargs: Any) -> None:
    task = queue.task(name="resize")(resize)
    with (
        Block() as block,
        pytest.raises(Misuse, match=r"resize\(picture: .*: (missing|too many|got an unexpected)"),
    ):
        queue.enqueue(task, *args, **kwargs)
    assert block.messages == []


def test_a_function_that_is_no_task_is_told(queue: Queue) -> None:
    nowhere: Any = None
    other = Queue(nowhere, endpoints.Queue(), Events(), adopt=lambda headers: Scope())
    for wrong in (resize, other.task(resize)):
        with Block(), pytest.raises(Misuse, match="is no task of this queue"):
            queue.enqueue(wrong, 1)  # type: ignore[arg-type]
