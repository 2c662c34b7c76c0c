"""Each checker finds what was planted, and nothing else: histories are generated, and spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outgrow.chaos import restored, verdict
from outgrow.chaos.history import Attempt, Happening, History, Sample
from outgrow.chaos.verdict import Finding

FAULT, UNDONE, ENDED = 10.0, 14.0, 30.0
CALM = (2.0, 10.0)
SERVER = "app-2"
NORMAL_S = 0.010


def clean(seed: int) -> History:
    """A history in which every promise is kept: a write now and then, of which some carry a mark."""
    rng = Random(seed)
    count = rng.randint(150, 300)
    attempts = []
    for number in range(count):
        at = ENDED * number / count
        latency = rng.uniform(0.001, NORMAL_S) if number % 10 == 0 else NORMAL_S
        kind = rng.choice(["read", "read", "read", "write", "mark"])
        session = rng.randint(0, 5)
        base = Attempt(
            request=kind,
            method="GET" if kind == "read" else "POST",
            intended=at,
            sent=at,
            ended=at + latency,
            session=session,
            trace=f"t{number}",
            servers=(rng.choice(["app-1", SERVER, "app-3"]),),
        )
        if kind != "mark":
            attempts.append(base)
            continue
        written = replace(base, key=f"run-{number}", version=1)
        later = written.ended + rng.uniform(0.0, 0.01)
        read = replace(
            written, method="GET", intended=later, sent=later, ended=later + latency, trace=f"t{number}r"
        )
        attempts += [written, read]
    keys = [each.key for each in attempts if each.key]
    return History(
        attempts=tuple(attempts),
        calm=CALM,
        ended=ENDED,
        happenings=(
            Happening(FAULT, "fault", SERVER, "a fault"),
            Happening(UNDONE, "undo", SERVER, "undone"),
        ),
        found=dict.fromkeys(keys, 1),
    )


def histories() -> st.SearchStrategy[History]:
    """One draw each: hundreds of them would take Hypothesis minutes."""
    return st.integers(0, 2**32).map(clean)


class Plant(NamedTuple):
    """A violation: how it gets into a history, and which checkers may say so."""

    name: str
    spoil: Callable[[History, st.DataObject], History | None]
    found_by: set[str]


CHECKERS: dict[str, Callable[[History], Finding]] = {
    "reads": verdict.reads,
    "writes": lambda history: verdict.writes(history, server=SERVER),
    "no_write_fails": verdict.no_write_fails,
    "lost": verdict.lost,
    "repeated": verdict.repeated,
    "stale": verdict.stale,
    "recovers": lambda history: verdict.recovers(history, FAULT, within_s=2.0),
}


def one(history: History, data: st.DataObject, fits: Callable[[Attempt], bool]) -> int | None:
    """The place of one attempt that fits."""
    places = [place for place, each in enumerate(history.attempts) if fits(each)]
    return data.draw(st.sampled_from(places)) if places else None


def put(history: History, place: int, attempt: Attempt) -> History:
    attempts = list(history.attempts)
    attempts[place] = attempt
    return replace(history, attempts=tuple(attempts))


def failed_read(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: each.reads)
    failure = data.draw(st.sampled_from(["reset", "timeout", "status 503", "not sent"]))
    return None if place is None else put(history, place, replace(history.attempts[place], failure=failure))


def failed_write_elsewhere(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: not each.reads and not FAULT - 1 <= each.sent <= UNDONE + 1)
    return None if place is None else put(history, place, replace(history.attempts[place], failure="reset"))


def failed_write_on_a_spared_server(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: not each.reads and FAULT <= each.sent <= UNDONE)
    if place is None:
        return None
    return put(history, place, replace(history.attempts[place], failure="status 500", servers=("app-1",)))


def failed_write_under_way(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: not each.reads and FAULT <= each.sent <= UNDONE)
    if place is None:
        return None
    return put(history, place, replace(history.attempts[place], failure="reset", servers=()))


def lost_mark(history: History, data: st.DataObject) -> History | None:
    if not history.found:
        return None
    key = data.draw(st.sampled_from(sorted(history.found)))
    return replace(history, found={**history.found, key: 0})


def doubled_mark(history: History, data: st.DataObject) -> History | None:
    if not history.found:
        return None
    key = data.draw(st.sampled_from(sorted(history.found)))
    return replace(history, found={**history.found, key: data.draw(st.integers(2, 5))})


def write_on_two_servers(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: not each.reads)
    if place is None:
        return None
    return put(history, place, replace(history.attempts[place], servers=("app-1", "app-3")))


def forgotten_write(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: bool(each.key) and each.reads)
    return None if place is None else put(history, place, replace(history.attempts[place], version=0))


def shown_the_past(history: History, data: st.DataObject) -> History | None:
    place = one(history, data, lambda each: each.reads)
    return (
        None if place is None else put(history, place, replace(history.attempts[place], failure="violation"))
    )


def slow_for_long(history: History, data: st.DataObject) -> History | None:
    until = data.draw(st.floats(3.0, 18.0))
    attempts = [
        replace(each, ended=each.intended + 0.5) if FAULT + 2.2 <= each.intended <= FAULT + until else each
        for each in history.attempts
        if each.request == "read" or not each.intended >= FAULT
    ]
    return replace(history, attempts=tuple(attempts), found={})


PLANTS = [
    Plant("a failed read", failed_read, {"reads"}),
    Plant("a failed write elsewhere", failed_write_elsewhere, {"writes", "no_write_fails"}),
    Plant("a failed write, spared", failed_write_on_a_spared_server, {"writes", "no_write_fails"}),
    Plant("a failed write under way", failed_write_under_way, {"no_write_fails"}),
    Plant("a lost mark", lost_mark, {"lost"}),
    Plant("a mark twice", doubled_mark, {"repeated"}),
    Plant("a write on two servers", write_on_two_servers, {"repeated"}),
    Plant("a forgotten write", forgotten_write, {"stale"}),
    Plant("shown the past", shown_the_past, {"stale"}),
]


def complaining(history: History) -> set[str]:
    return {name for name, check in CHECKERS.items() if not check(history).held}


@settings(max_examples=30, deadline=None)
@given(histories())
def test_a_clean_history_is_clean(history: History) -> None:
    assert complaining(history) == set()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
@settings(max_examples=30, deadline=None)
@given(history=histories(), data=st.data())
def test_what_was_planted_is_found_and_nothing_else(
    plant: Plant, history: History, data: st.DataObject
) -> None:
    spoilt = plant.spoil(history, data)
    if spoilt is not None:
        assert complaining(spoilt) == plant.found_by
        for name in plant.found_by:
            found = CHECKERS[name](spoilt)
            assert len(found.cases) == 1, "the one that was planted"


@settings(max_examples=30, deadline=None)
@given(history=histories(), data=st.data())
def test_slowness_that_lasts_is_found(history: History, data: st.DataObject) -> None:
    spoilt = slow_for_long(history, data)
    assert spoilt is not None
    slow = [each.intended for each in spoilt.attempts if each.ended - each.intended > 0.4]
    took = verdict.recovery_s(spoilt, FAULT, 2 * verdict.calm_p99(spoilt))
    if not slow:
        assert took == 0.0
    elif took is not None:
        assert abs(took - (max(slow) - FAULT)) <= 2 * verdict.STEP_S, "the end of the last slow one's start"


def attempt(at: float, latency: float = 0.01, **more: object) -> Attempt:
    base = Attempt(request="r", method="GET", intended=at, sent=at, ended=at + latency)
    return replace(base, **more)


def steady(slow: Callable[[float], float]) -> History:
    """A hundred a second; `slow` says how long each takes."""
    attempts = tuple(attempt(n / 100, slow(n / 100)) for n in range(3000))
    return History(
        attempts=attempts, calm=CALM, ended=ENDED, happenings=(Happening(FAULT, "fault", SERVER, "x"),)
    )


@pytest.mark.parametrize("until", [0.0, 0.5, 1.4, 1.9])
def test_the_time_of_recovery(until: float) -> None:
    history = steady(lambda at: 0.3 if FAULT <= at < FAULT + until else 0.01)
    found = verdict.recovers(history, FAULT, within_s=2.0)
    assert found.held
    recovery = found.figures["recovery_s"]
    # Of a hundred requests one may be slow: a window that begins with the last slow one is normal already.
    assert recovery is not None and until - 0.1 <= recovery <= until + 0.05


def test_it_never_recovers() -> None:
    found = verdict.recovers(steady(lambda at: 0.01 if at < FAULT else 0.3), FAULT, within_s=2.0)
    assert not found.held and found.figures["recovery_s"] is None


def test_one_slow_second_much_later_is_no_recovery_before_it() -> None:
    found = verdict.recovers(steady(lambda at: 0.3 if 20 <= at < 21 else 0.01), FAULT, within_s=2.0)
    assert not found.held and (found.figures["recovery_s"] or 0) > 10


@pytest.mark.parametrize(("later_s", "held"), [(0.01, True), (0.09, True), (0.24, True), (0.26, False)])
def test_what_is_slow_for_a_while_or_for_good(later_s: float, held: bool) -> None:
    def judged(slow: Callable[[float], float]) -> Finding:
        return verdict.in_time(steady(slow), FAULT + 4, factor=5, least_s=0.25, promise="x")

    assert judged(lambda at: 0.01 if at < FAULT else 3.0 if at < FAULT + 4 else later_s).held is held
    assert judged(lambda at: 0.06 if at < FAULT else 0.29).held, "five times as slow as it was"


def test_nothing_is_no_proof() -> None:
    """Without requests nothing was shown: p99 that nobody measured has not recovered."""
    empty = History(attempts=(), calm=CALM, ended=ENDED)
    assert not verdict.recovers(empty, FAULT, within_s=2).held
    assert not verdict.in_time(empty, FAULT, factor=5, least_s=1, promise="x").held
    assert not verdict.serves_again(empty, FAULT, within_s=2).held
    assert not verdict.returns(empty, SERVER, UNDONE, within_s=2).held
    assert not verdict.leaves(empty, SERVER, FAULT, within_s=2).held
    assert not verdict.quiet(empty, SERVER, FAULT, FAULT).held
    assert not verdict.quiet(empty, SERVER, FAULT, UNDONE).held, "nobody has counted"
    assert not verdict.better(empty, (0, 1), (1, 2), times=2, promise="").held
    assert not verdict.reads(empty).held
    assert not verdict.no_write_fails(empty).held
    assert not verdict.lost(empty).held


def test_the_gap_of_a_service() -> None:
    def answer(at: float) -> Attempt:
        return attempt(at, failure="refused" if FAULT <= at < FAULT + 1.2 else "")

    history = History(attempts=tuple(answer(n / 50) for n in range(1500)), calm=CALM, ended=ENDED)
    found = verdict.serves_again(history, FAULT, within_s=2)
    assert found.held and found.figures["failed"] == 60
    assert 1.1 <= (found.figures["serves_again_s"] or 0) <= 1.3
    assert not verdict.serves_again(history, FAULT, within_s=1).held
    late = replace(history, attempts=(*history.attempts, attempt(25.0, failure="reset")))
    assert not verdict.serves_again(late, FAULT, within_s=2).held


def sampled(counts: list[tuple[float, int, bool]]) -> History:
    samples = tuple(Sample(at, "balancer-1", SERVER, count, healthy) for at, count, healthy in counts)
    return History(attempts=(), calm=CALM, ended=ENDED, samples=samples)


def test_traffic_at_a_server_that_is_out() -> None:
    out = sampled([(9, 50, True), (11, 60, False), (12, 60, False), (13, 60, False), (15, 75, True)])
    assert verdict.quiet(out, SERVER, 11, 13).held
    assert verdict.quiet(out, SERVER, 9, 13).figures["requests"] == 10
    assert not verdict.quiet(out, SERVER, 9, 13).held
    back = verdict.returns(out, SERVER, 12.5, within_s=5)
    assert back.held and back.figures["returned_s"] == 2.5
    assert not verdict.returns(out, SERVER, 12.5, within_s=2).held


def mark(number: int, at: float, **more: object) -> Attempt:
    """A write with a mark, which takes 20 ms."""
    return attempt(at, 0.02, **{"method": "POST", "key": f"run-{number}", "version": 1, **more})


def test_what_was_restored() -> None:
    moment = 5.01
    marks = (mark(0, 1.0), mark(1, 2.0, failure="reset"), mark(2, 5.0), mark(3, 6.0), mark(4, 7.0))
    exact = {"run-0": 1, "run-1": 0, "run-2": 1, "run-3": 0}  # 4 was still under way when they were counted

    def found(**changed: int) -> tuple[Finding, Finding]:
        counted = {**exact, **{name.replace("_", "-"): count for name, count in changed.items()}}
        history = History(attempts=marks, calm=CALM, ended=ENDED, restored=counted)
        return restored.nothing_missing(history, moment), restored.nothing_later(history, moment)

    for under_way in (0, 1):
        assert all(each.held for each in found(run_2=under_way, run_1=under_way)), "either may be"
    for lost_or_twice in (0, 2):
        missing, later = found(run_0=lost_or_twice)
        assert not missing.held and later.held and len(missing.cases) == 1
    missing, later = found(run_3=1)
    assert missing.held and not later.held and len(later.cases) == 1
    nothing = History(attempts=(), calm=CALM, ended=ENDED)
    assert not restored.nothing_missing(nothing, moment).held
    assert not restored.nothing_later(nothing, moment).held


def test_sessions_that_are_lost() -> None:
    asked = [attempt(n / 10, request="session", session=n % 3) for n in range(90)]
    history = History(attempts=tuple(asked), calm=CALM, ended=ENDED)
    assert verdict.sessions_kept(history, "session").held
    asked[50] = replace(asked[50], failure="status 401")
    asked[51] = replace(asked[51], failure="reset")  # another checker's
    found = verdict.sessions_kept(replace(history, attempts=tuple(asked)), "session")
    assert not found.held and found.figures == {"users": 3, "lost": 1} and len(found.cases) == 1
    assert not verdict.sessions_kept(history, "another").held, "nobody has asked"


def test_what_became_of_releases() -> None:
    def told(*texts: str) -> History:
        said = (Happening(11.0 + at, "note", verdict.RELEASE, text) for at, text in enumerate(texts))
        return History(attempts=(), calm=CALM, ended=ENDED, happenings=tuple(said))

    there, back = (f"{number} {verdict.RUNS}" for number in (7, 6))
    gone, ill = "7 has gone again: it is slow: its p95", "7 has gone again: /health/deep says 503"
    assert verdict.released(told(there, back), "", runs=2).held
    for wrong in ((there,), (gone,), (gone, back), ()):
        assert not verdict.released(told(*wrong), "", runs=2).held
    assert verdict.released(told(gone), "", runs=0, because="is slow").held
    for wrong in ((ill,), (there, back), (there,), ()):
        assert not verdict.released(told(*wrong), "", runs=0, because="is slow").held


def test_a_balancer_that_counts_anew_is_no_traffic() -> None:
    """One that was restarted begins at nothing."""
    restarted = sampled([(11, 60, False), (12, 60, False), (13, 0, False), (14, 0, False)])
    assert verdict.quiet(restarted, SERVER, 11, 14).held
