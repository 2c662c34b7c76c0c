"""Marks: writes that can be counted afterwards. Whoever reads a mark finds it so often as it was written.

The scenario's [marks] says how one is written and read. In a drill each is a journey of one user: write
it, then read it back. When the load has ended every mark is read once more, by nobody in particular.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from outgrow.errors import Misuse, OutgrowError
from outgrow.load.client import Answer, Failure, Pool
from outgrow.load.generator import Observation
from outgrow.load.profile import Journey, Marks, Request, Scenario
from outgrow.load.step import Step
from outgrow.load.target import Target
from outgrow.load.template import MISSING, Place

WRITE, READ, JOURNEY = "a mark", "the mark read back", "marks"
AT_ONCE = 8
TRIES = 20
RETRY_S = 0.25
TIMEOUT_S = 10.0


def require(scenario: Scenario) -> Marks:
    """Raises Misuse where the scenario says nothing of marks."""
    if scenario.marks is None:
        raise Misuse(
            f'the scenario "{scenario.name}" has no [marks]: nothing could tell whether a write is lost',
            hint="docs/drills.md shows the four lines; examples/conduit/load.toml has them",
        )
    return scenario.marks


def marked(scenario: Scenario) -> Scenario:
    """The scenario with marks among its requests."""
    marks = require(scenario)
    requests = {WRITE: replace(marks.write, weight=0.0), READ: replace(marks.read, weight=0.0)}
    others: list[Request | Journey] = [*scenario.request.values(), *scenario.journey.values()]
    total = sum(each.weight for each in others)
    weight = total * marks.share / max(1 - marks.share, 0.001)
    journey = {JOURNEY: Journey(weight=weight, steps=(WRITE, READ))}
    return replace(
        scenario, request={**scenario.request, **requests}, journey={**scenario.journey, **journey}
    )


class Finder:
    """Reads how often a mark is there."""

    def __init__(self, marks: Marks) -> None:
        self._at = Place(marks.at)

    def version(self, observation: Observation) -> int | None:
        """What an answer says of its mark: a write makes it 1. None without a right answer."""
        if observation.verdict.kind or observation.answer is None:
            return None
        return 1 if observation.name == WRITE else self.count(observation.answer.body)

    def count(self, body: bytes) -> int:
        """How many there are in this answer."""
        found = self._at.find(msgspec.json.decode(body)) if body else MISSING
        return len(found) if isinstance(found, list) else int(found is not MISSING)


def key(values: Mapping[str, Any]) -> str:
    """The mark of a journey."""
    return f"{values['run']}-{values['unique']}"


async def look(marks: Marks, target: Target, keys: Iterable[str]) -> dict[str, int]:
    """How often each is there now. Raises OutgrowError when the application does not say."""
    step, finder = Step(READ, marks.read, target.prefix), Finder(marks)
    pool = Pool(target, maximum=AT_ONCE, timeout_s=TIMEOUT_S)
    waiting, found = iter(sorted(set(keys))), dict[str, int]()

    async def work() -> None:
        for each in waiting:
            run, _, unique = each.partition("-")
            found[each] = await _count(pool, step, finder, target, {"run": run, "unique": unique})

    try:
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    finally:
        await pool.close()
    return found


async def _count(pool: Pool, step: Step, finder: Finder, target: Target, values: Mapping[str, Any]) -> int:
    head = f"host: {target.host}\r\nuser-agent: outgrow-drill\r\n".encode()
    answer: Answer | Failure = Failure("not sent", "")
    for _ in range(TRIES):  # a server that is still starting is no lost write
        answer = await _ask(pool, step.lines(values) + head + step.body(values))
        if isinstance(answer, Answer) and answer.status in (step.status or (200,)):
            return finder.count(answer.body)
        if isinstance(answer, Answer) and answer.status == 404:
            return 0
        await asyncio.sleep(RETRY_S)
    what = answer.detail if isinstance(answer, Failure) else f"status {answer.status}"
    raise OutgrowError(f"the marks cannot be read back: {what}", hint="is the application in order again?")


async def _ask(pool: Pool, data: bytes) -> Answer | Failure:
    answered: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
    pool.send(data, answered.set_result)
    return await answered
