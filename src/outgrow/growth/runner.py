"""Runs the steps of a move.

for each step:   journal "applying" ─► apply ─► verify ─► invariant ─► journal "done"
a failure:       before the decisive step: undo what was begun, last first
                 after it: the way is forward; `resume` tries again
a crash:         the journal says where; `resume` applies that step again, `undo` takes all back
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from outgrow.errors import FleetError, GrowthFailed, OutgrowError
from outgrow.growth.invariant import check
from outgrow.growth.journal import Journal
from outgrow.growth.plan import named
from outgrow.growth.step import Context, Step

State = Literal["starting", "working", "done", "failed", "undoing", "undone"]


class Progress(NamedTuple):
    """What is told of a step while it goes on."""

    step: str
    state: State
    text: str


Tell = Callable[[Progress], None]


async def forward(journal: Journal, context: Context, tell: Tell) -> None:
    """Apply every step that is not done. Raises GrowthFailed; what was begun is undone then, if it can be."""
    steps = named(journal.begun.move).steps()
    await _restore(steps, journal, context)
    for step in steps:
        if journal.state_of(step.name) != "done":
            try:
                await _apply(step, journal, context, tell)
            except (Exception, asyncio.CancelledError) as error:
                await _whatever_happens(_failed(step, journal, context, tell, error))
                raise
    journal.end("done")


async def backward(journal: Journal, context: Context, tell: Tell) -> None:
    """Take back every step that was begun, last first. Raises FleetError after the point of no return."""
    steps = named(journal.begun.move).steps()
    if context.decided:
        raise FleetError(
            "the data has moved already, so there is nothing to take back",
            hint="`outgrow grow --resume` finishes, then `outgrow shrink` moves the data back",
        )
    for step in reversed(steps):
        if journal.state_of(step.name) not in (None, "undone"):
            tell(Progress(step.name, "undoing", ""))
            journal.add("undoing", step.name)
            await step.undo(context)
            journal.add("undone", step.name)
            tell(Progress(step.name, "undone", ""))
    journal.end("undone")


async def _restore(steps: tuple[Step, ...], journal: Journal, context: Context) -> None:
    """After a crash or a restart of the fleet: what the steps that come need is there again."""
    for step in steps:
        if step.lasting and journal.state_of(step.name) == "done":
            await step.apply(context)


async def _apply(step: Step, journal: Journal, context: Context, tell: Tell) -> None:
    tell(Progress(step.name, "starting", step.says))
    started = time.monotonic()
    context.says = lambda text: tell(Progress(step.name, "working", text))
    context.keep = lambda facts: _keep(facts, step, journal, context)
    journal.add("applying", step.name)
    await step.apply(context)
    await step.verify(context)
    await check(context)
    journal.add("done", step.name)
    tell(Progress(step.name, "done", f"{time.monotonic() - started:.1f} s"))


def _keep(facts: dict[str, Any], step: Step, journal: Journal, context: Context) -> None:
    journal.add("applying", step.name, kept=facts)
    context.kept.update(facts)


async def _failed(step: Step, journal: Journal, context: Context, tell: Tell, error: BaseException) -> None:
    what = _described(error)
    journal.add("failed", step.name, what)
    tell(Progress(step.name, "failed", what))
    if context.decided:
        if isinstance(error, Exception):
            raise GrowthFailed(
                f"step {step.name} failed after the data had moved: {what}",
                hint="the application serves from its new place; `outgrow grow --resume` finishes the rest",
            ) from error
        return
    try:
        await backward(journal, context, tell)
    except Exception as obstacle:
        raise GrowthFailed(
            f"step {step.name} failed: {what}. It could not be taken back: {_described(obstacle)}",
            hint="the application serves from where it was; `outgrow grow --undo` tries again",
        ) from error
    if isinstance(error, Exception):
        raise GrowthFailed(
            f"step {step.name} failed, and all was taken back: {what}",
            hint="the application stays where it was; repair the cause and try again",
        ) from error


def _described(error: BaseException) -> str:
    if isinstance(error, OutgrowError):
        return error.message
    return "interrupted" if isinstance(error, asyncio.CancelledError) else f"{type(error).__name__}: {error}"


async def _whatever_happens(work: Coroutine[Any, Any, None]) -> None:
    """To its end, even if the task around it is cancelled again."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except BaseException:
            break
    task.result()
