"""The gate in front of writers, and a database that moves behind it."""

from __future__ import annotations

import asyncio

import pytest

from outgrow.errors import Unavailable
from outgrow.runtime.database.gate import Gate


async def test_it_waits_for_those_inside_and_lets_nobody_in() -> None:
    gate = Gate(1.0)
    await gate.enter()
    holding = asyncio.ensure_future(gate.hold(5))
    await asyncio.sleep(0)
    entering = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0.01)
    assert not holding.done() and not entering.done() and gate.held
    gate.leave()
    await holding
    await asyncio.sleep(0.01)
    assert not entering.done()
    gate.release()
    await entering
    assert not gate.held


async def test_somebody_who_does_not_leave() -> None:
    gate = Gate(1.0)
    await gate.enter()
    with pytest.raises(TimeoutError):
        await gate.hold(0.02)
    assert not gate.held
    await gate.enter()


async def test_held_too_long() -> None:
    gate = Gate(0.02)
    await gate.hold(1)
    with pytest.raises(Unavailable, match="writes were held"):
        await gate.enter()
    gate.release()
    await gate.enter()


async def test_held_again_before_the_waiting_are_through() -> None:
    gate = Gate(5)
    await gate.hold(1)
    entering = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    gate.release()
    await gate.hold(1)
    await asyncio.sleep(0.01)
    assert not entering.done(), "it slipped through while the gate was shut again"
    gate.release()
    await entering


async def test_a_hold_that_is_cancelled() -> None:
    gate = Gate(1)
    await gate.enter()
    holding = asyncio.ensure_future(gate.hold(5))
    await asyncio.sleep(0)
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert not gate.held
