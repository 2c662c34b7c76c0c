"""The runner: in order, taken back last first, gone on with after any crash, decided or not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from outgrow import endpoints, stages
from outgrow.errors import FleetError, GrowthFailed, VerificationFailed
from outgrow.growth import moves, plan, runner
from outgrow.growth.journal import Journal
from outgrow.growth.runner import Progress
from outgrow.growth.step import DECISIVE_EPOCH, Context, Step
from outgrow.topology import Topology, parse

ONE = parse('stage = "single-server"\n')
TWO = stages.apply(ONE, "separate-database")


class Steps:
    """A move of four steps that write down what is done; some fail."""

    name = "steps"
    says = "tries"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing: dict[str, BaseException] = {}

    def fits(self, before: Topology, after: Topology) -> bool:
        return True

    def steps(self) -> tuple[Step, ...]:
        return (self._step("a", lasting=True), self._step("b"), self._step("c"), self._step("d"))

    def _step(self, name: str, *, lasting: bool = False) -> Step:
        async def apply(context: Context) -> None:
            self._note(f"apply {name}")
            if name == "c":
                self._decide(context)
                self._note("after c")

        async def verify(context: Context) -> None:
            self._note(f"verify {name}")

        async def undo(context: Context) -> None:
            self._note(f"undo {name}")

        return Step(name, f"does {name}", apply, verify, undo, lasting)

    def _note(self, what: str) -> None:
        self.done.append(what)
        if what in self.failing:
            raise self.failing.pop(what)

    def _decide(self, context: Context) -> None:
        document = context.state.published()
        assert document is not None
        context.keep({DECISIVE_EPOCH: document.epoch + 1})
        self._note("before c")
        after = replace(document, epoch=document.epoch + 1, stage=TWO.stage)
        endpoints.write(context.state.placement().endpoints, after)


class World:
    """An application's directory with a move under way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.told: list[Progress] = []
        self.journal.begin("steps", ONE, TWO)

    @property
    def journal(self) -> Journal:
        """As a new command reads it."""
        return Journal(self.directory / ".outgrow" / "growth")

    async def forward(self) -> None:
        journal = self.journal
        await runner.forward(journal, Context(self.directory, ONE, TWO, journal.kept), self.told.append)

    async def backward(self) -> None:
        journal = self.journal
        await runner.backward(journal, Context(self.directory, ONE, TWO, journal.kept), self.told.append)


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps()
    monkeypatch.setattr(plan, "MOVES", (*moves.MOVES, made))

    async def check(context: Context) -> None:
        made._note("invariant")

    monkeypatch.setattr(runner, "check", check)
    return made


@pytest.fixture
def world(tmp_path: Path, move: Steps) -> World:
    (tmp_path / ".outgrow").mkdir()
    document = endpoints.from_topology(ONE, tmp_path)
    endpoints.write(tmp_path / ".outgrow" / "endpoints.json", document)
    return World(tmp_path)


async def test_in_order_with_the_invariant_between(world: World, move: Steps) -> None:
    await world.forward()
    assert move.done[:6] == ["apply a", "verify a", "invariant", "apply b", "verify b", "invariant"]
    assert not world.journal.open
    assert [each.step for each in world.told if each.state == "done"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("where", ["apply b", "verify b", "before c"])
async def test_a_failure_before_the_decision_takes_all_back(world: World, move: Steps, where: str) -> None:
    move.failing[where] = VerificationFailed("it differs")
    with pytest.raises(GrowthFailed, match="all was taken back: it differs"):
        await world.forward()
    undone = [each for each in move.done if each.startswith("undo")]
    assert undone == (["undo c"] if where == "before c" else []) + ["undo b", "undo a"]
    assert not world.journal.open


@pytest.mark.parametrize("where", ["after c", "verify c", "apply d"])
async def test_after_the_decision_the_way_is_forward(world: World, move: Steps, where: str) -> None:
    move.failing[where] = FleetError("a cable is cut")
    with pytest.raises(GrowthFailed, match="failed after the data had moved: a cable is cut"):
        await world.forward()
    assert not any(each.startswith("undo") for each in move.done)
    with pytest.raises(FleetError, match="the data has moved already"):
        await world.backward()
    del move.done[:]
    await world.forward()
    assert move.done[0] == "apply a", "what lasts is there again"
    assert "apply b" not in move.done and not world.journal.open


async def test_cut_off_anywhere_and_resumed(world: World, move: Steps) -> None:
    """BaseException stands for SIGKILL: nothing of the runner comes after it."""
    for where in ("apply a", "verify a", "apply b", "invariant", "before c", "after c", "apply d"):
        move.failing[where] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            await world.forward()
        assert world.journal.open
    await world.forward()
    assert not world.journal.open


async def test_undone_after_being_cut_off_while_it_was_undone(world: World, move: Steps) -> None:
    move.failing["apply b"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await world.forward()
    move.failing["undo a"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await world.backward()
    await world.backward()
    assert [each for each in move.done if each.startswith("undo")] == ["undo b", "undo a", "undo a"]
    assert not world.journal.open


async def test_what_cannot_be_taken_back_is_told_with_its_cause(world: World, move: Steps) -> None:
    move.failing |= {"apply b": FleetError("no room"), "undo b": FleetError("no key")}
    with pytest.raises(GrowthFailed, match=r"step b failed: no room. It could not be taken back: no key"):
        await world.forward()
    assert world.journal.open
    await world.backward()
    assert not world.journal.open


async def test_a_higher_epoch_alone_decides_nothing(world: World, move: Steps) -> None:
    """The fleet was started again after the growth had chosen its epoch and before it published."""
    move.failing["before c"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        await world.forward()
    path = world.directory / ".outgrow" / "endpoints.json"
    document = endpoints.read(path)
    endpoints.write(path, replace(document, epoch=document.epoch + 1))
    await world.backward()
    assert not world.journal.open


async def test_interrupted_it_is_taken_back_to_the_end(world: World, move: Steps) -> None:
    move.failing["apply b"] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await world.forward()
    assert move.done[-2:] == ["undo b", "undo a"] and not world.journal.open
