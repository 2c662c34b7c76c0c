"""The checker of guarantees, against histories that are right, that are wrong, and its slow twin."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outgrow.chaos.guarantees import Judgement, check, lost
from outgrow.chaos.operations import (
    CAUSAL,
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    ONCE,
    READ_YOUR_WRITES,
    REAL,
    WRITES_FOLLOW_READS,
    Operation,
)
from tests.chaos.definitions import Definitions
from tests.support.replicated import Store

EVERY = 1_000_000
SEEDS = st.integers(0, 2**32)


def broken(judgement: Judgement) -> dict[str, int]:
    return {name: count for name, count in judgement.broken.items() if count}


@given(SEEDS)
@settings(max_examples=150, deadline=None)
def test_a_store_that_keeps_its_word_is_never_blamed(seed: int) -> None:
    judgement = check(Store(seed).run())
    assert broken(judgement) == {}
    assert judgement.held


@given(SEEDS)
@settings(max_examples=150, deadline=None)
def test_nor_is_one_that_loses_writes_and_says_so(seed: int) -> None:
    store = Store(seed, loses=True)
    operations = store.run()
    assert broken(check(operations)) == {}
    last = store.last()
    gone = {each.value for each in lost(operations, last)}
    kept = {each.value for each in last}
    assert not gone & kept


@given(SEEDS, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_it_finds_what_the_definitions_say(seed: int, keeps: bool, loses: bool, tells: bool) -> None:
    operations = Store(seed, steps=250, keeps=keeps, loses=loses, tells=tells).run()
    judgement = check(operations, cases_max=EVERY)
    found = {(each.guarantee, each.operations[-1]) for each in judgement.violations}
    assert found == Definitions(operations).broken()
    for each in judgement.violations:
        assert_proved(each.guarantee, each.operations)


PLANTS = {
    "A writes x1, A reads x0": READ_YOUR_WRITES,
    "B writes x1, A reads x1, A reads x0": MONOTONIC_READS,
    "A writes x1, A writes y1, B reads y1, B reads x0": MONOTONIC_WRITES,
    "A writes x2, A writes x1": MONOTONIC_WRITES,
    "A writes x1, B reads x1, B writes y1, C reads y1, C reads x0": WRITES_FOLLOW_READS,
    "A writes x2, B reads x2, B writes x1": WRITES_FOLLOW_READS,
    "A writes x1, B reads x1, B writes y1, C reads y1, C writes z1, D reads z1, D reads x0": CAUSAL,
    "A writes x1, A sends m1, B receives m1, B reads x0": CAUSAL,
    "A writes x1, B reads x1, B sends m1, C receives m1, C sends m2, D receives m2, D reads x0": CAUSAL,
    "A writes x1 with m1, B receives m1, B reads x0": CAUSAL,
    "A writes x1 unsure with m1, C reads x1, B receives m1, B reads x0": CAUSAL,
    "A writes x1 in vain, B reads x1": REAL,
    "B reads x7": REAL,
    "A writes x1 in vain with m1, B receives m1": REAL,
    "A writes x1, B reads x1, B reads x1 again": ONCE,
}
"""What is done, in this order, and the one guarantee that it breaks."""

HARMLESS = (
    "A writes x1, A reads x1, B reads x0, B reads x1",
    "A writes x1 unsure, A reads x0, A reads x1",
    "A writes x1, A writes y1, B reads x0, B reads y1, B reads x1",
    "A writes x1, A sends m1, B reads x0, B receives m1, B reads x1",
    "A writes x1 unsure with m1, B receives m1, B reads x0",
    "A sends m1, A writes x1, B receives m1, B reads x0",
    "A writes x1 in vain, A reads x0",
)


def story(text: str, times: list[float]) -> list[Operation]:
    """The operations that a line of PLANTS tells, in sessions and on keys of their own."""
    found = []
    for part, at in zip(text.split(", "), times, strict=True):
        session, verb, what, *rest = part.split()
        of_key = verb in ("reads", "writes")
        version = int(what[1:]) if of_key else 0
        lost = "vain" in rest or "unsure" in rest
        message = rest[-1] if "with" in rest else "m0" if of_key else what
        found.append(
            Operation(
                session=1_000_000 + ord(session),
                kind=verb.removesuffix("s"),  # type: ignore[arg-type]
                started=at,
                ended=at,
                key="" if not of_key else f"planted {what[0]}",
                version=0 if lost else version + ("again" in rest),
                value=0 if not version else 1_000_000 + 10 * ord(what[0]) + version,
                outcome="failed" if "vain" in rest else "unknown" if "unsure" in rest else "ok",
                message=0 if message == "m0" else 1_000_000 + int(message[1:]),
            )
        )
    return found


def planted(text: str, seed: int) -> tuple[list[Operation], list[Operation]]:
    """A long and blameless history with this story in it, and the story alone."""
    operations = Store(seed, steps=150).run()
    rng = Random(seed)
    times = sorted(rng.uniform(0, operations[-1].ended) for _ in text.split(", "))
    told = story(text, times)
    mixed = [*operations, *told]
    rng.shuffle(mixed)
    return sorted(mixed, key=lambda each: each.started), told


@pytest.mark.parametrize("text", PLANTS)
@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_what_is_planted_is_found_and_proved(text: str, seed: int) -> None:
    operations, told = planted(text, seed)
    judgement = check(operations)
    assert broken(judgement) == {PLANTS[text]: 1}
    assert not judgement.held
    (violation,) = judgement.violations
    assert violation.operations[-1] == told[-1]
    assert set(violation.operations) <= set(told)
    if PLANTS[text] not in (REAL, ONCE):
        assert_proved(violation.guarantee, violation.operations)


@pytest.mark.parametrize("text", HARMLESS)
@given(SEEDS)
@settings(max_examples=5, deadline=None)
def test_what_only_looks_bad_is_not(text: str, seed: int) -> None:
    operations, _ = planted(text, seed)
    assert broken(check(operations)) == {}


def test_the_cases_are_told_in_words() -> None:
    told = story("A writes x1, A reads x0", [1.0, 2.0])
    (violation,) = check(told).violations
    assert violation.says == (
        "read your writes: session 1000065 read planted x at version 0, and knew of a later one"
    )
    assert str(told[0]) == "1.000000-1.000000 session 1000065 writes planted x at version 1 (value 1001201)"


def test_a_history_without_anything_in_it_shows_nothing() -> None:
    assert not check([]).held
    assert not check(story("A writes x1", [1.0])).held
    assert check(story("A writes x1, B reads x0", [1.0, 2.0])).held


def test_two_writes_of_one_value_are_no_recording() -> None:
    with pytest.raises(ValueError, match="two writes have the value"):
        check(story("A writes x1, B writes x1", [1.0, 2.0]))


def test_a_write_that_a_failover_has_lost_is_found() -> None:
    """Version 2 is made twice: whoever knows the first of them reads the past, whatever the number says."""
    base = story("A writes x1, A writes x2, B reads x2, B reads x3", [1.0, 2.0, 5.0, 8.0])
    other = [replace(each, value=each.value + 5) for each in story("C writes x2, C writes x3", [3.0, 4.0])]
    first, second = replace(other[0], previous=base[0].value), replace(other[1], previous=other[0].value)
    later = replace(base[3], value=second.value, previous=first.value)
    known, lost_one = base[2], base[1]
    history = [base[0], replace(lost_one, previous=base[0].value), known, first, second, later]
    judgement = check(history)
    assert broken(judgement) == {MONOTONIC_READS: 1}
    assert judgement.violations[0].operations == (known, later)
    assert [each.value for each in lost(history, [later])] == [lost_one.value]


def assert_proved(guarantee: str, chain: tuple[Operation, ...]) -> None:
    """It begins with what was known, and each next operation follows in its session or has learned of it."""
    assert chain[0].key == chain[-1].key and len(chain) > 1
    assert chain[0].kind == "write" if guarantee in (READ_YOUR_WRITES, MONOTONIC_WRITES) else True
    assert chain[0].kind == "read" if guarantee in (MONOTONIC_READS, WRITES_FOLLOW_READS) else True
    for one, other in pairwise(chain):
        same = one.session == other.session and one.ended <= other.started
        read = one.kind == "write" and other.kind == "read" and one.value == other.value
        message = one.message == other.message != 0 and other.kind == "receive"
        assert same or read or message, (one, other)
