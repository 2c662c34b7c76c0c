"""The checkers of a takeover: each finds what it is for, and holds where all is well."""

from __future__ import annotations

from msgspec.structs import replace

from outgrow.chaos import takeover
from outgrow.chaos.history import Attempt, Happening, History

FAULTS = (10.0, 20.0)
AGAIN = "is in order again"


def attempt(at: float, method: str = "GET", **more: object) -> Attempt:
    base = Attempt(request="r", method=method, intended=at, sent=at, ended=at + 0.01)
    return replace(base, **more)


def history(*attempts: Attempt, backs: tuple[float, ...] = ()) -> History:
    """Two faults, and when whoever was hurt was back."""
    happenings = [Happening(at, "fault", "postgres-1", "x") for at in FAULTS]
    happenings += [Happening(at, "note", "postgres-1", AGAIN) for at in backs]
    found = {each.key: 1 for each in attempts if each.key}
    return History(attempts=attempts, calm=(0, 10), ended=30.0, happenings=tuple(happenings), found=found)


def writes(gap_s: float, waits: bool = False) -> list[Attempt]:
    """Fifty a second; after each fault they fail for so long, or wait until then."""
    found = []
    for number in range(1500):
        at = number / 50
        ends = next((fault + gap_s for fault in FAULTS if fault <= at < fault + gap_s), None)
        found.append(attempt(at, "POST"))
        if ends is not None:
            found[-1] = replace(found[-1], **({"ended": ends} if waits else {"failure": "status 503"}))
    return found


def test_writes_that_fail_until_another_has_taken_over() -> None:
    found = takeover.writes_again(history(*writes(2.0)), FAULTS, within_s=3)
    assert found.held and 1.9 < (found.figures["worst_s"] or 0) < 2.1 and found.figures["faults"] == 2
    assert not takeover.writes_again(history(*writes(4.0)), FAULTS, within_s=3).held


def test_writes_that_wait_are_not_served_meanwhile() -> None:
    found = takeover.writes_again(history(*writes(2.0, waits=True)), FAULTS, within_s=3)
    assert found.held and 1.9 < (found.figures["worst_s"] or 0) < 2.1 and found.figures["failed"] == 0
    assert not takeover.writes_again(history(*writes(4.0, waits=True)), FAULTS, within_s=3).held


def test_a_write_that_fails_much_later_is_no_recovery_before_it() -> None:
    late = attempt(27.0, "POST", failure="status 500")
    found = takeover.writes_again(history(*writes(0.5), late), FAULTS, within_s=3)
    assert not found.held and (found.figures["worst_s"] or 0) > 6.9


def test_a_write_that_is_under_way_at_the_next_fault_fails_because_of_that() -> None:
    under_way = attempt(FAULTS[1] - 0.01, "POST", failure="status 503", ended=FAULTS[1] + 0.2)
    found = takeover.writes_again(history(*writes(0.5), under_way), FAULTS, within_s=3)
    assert found.held and (found.figures["worst_s"] or 0) < 0.6 and (found.figures["failed"] or 0) > 1


def test_writes_that_never_come_back() -> None:
    early = [each for each in writes(0.5) if each.sent < FAULTS[1]]
    assert not takeover.writes_again(history(*early), FAULTS, within_s=3).held
    assert not takeover.writes_again(history(), (), within_s=3).held, "nothing was shown"


def test_reads_may_fail_where_they_were_under_way_and_nowhere_else() -> None:
    under_way = attempt(9.99, failure="reset", ended=10.5)
    calm = [attempt(number / 10) for number in range(300)]
    assert takeover.reads_go_on(history(*calm, under_way), FAULTS).held
    for bad in (attempt(10.2, failure="reset"), attempt(5.0, failure="status 500")):
        found = takeover.reads_go_on(history(*calm, bad), FAULTS)
        assert not found.held and found.figures["wrong"] == 1 and len(found.cases) == 1
    told = attempt(12.0, failure="status 409")
    assert takeover.reads_go_on(history(*calm, told), FAULTS, told_lost=True).held
    assert not takeover.reads_go_on(history(*calm, told), FAULTS).held
    assert not takeover.reads_go_on(history(), FAULTS).held


def test_only_the_last_moment_before_a_fault_may_be_lost() -> None:
    marks = [attempt(number / 5, "POST", key=f"m{number}", version=1) for number in range(100)]
    seen = history(*marks)
    assert takeover.lost(seen, FAULTS).held
    near = replace(seen, found={**seen.found, "m48": 0})
    assert takeover.lost(near, FAULTS).held and takeover.lost(near, FAULTS).figures["lost"] == 1
    for older in ("m10", "m51"):
        found = takeover.lost(replace(seen, found={**seen.found, older: 0}), FAULTS)
        assert not found.held and found.figures["older"] == 1
    assert not takeover.lost(history(), FAULTS).held


def test_each_time_it_has_to_be_back() -> None:
    assert takeover.returns(history(backs=(14.0, 29.0)), AGAIN, within_s=10).figures["returned_s"] == 9.0
    assert not takeover.returns(history(backs=(14.0, 29.0)), AGAIN, within_s=8).held
    assert not takeover.returns(history(backs=(14.0,)), AGAIN, within_s=8).held
    assert not takeover.returns(history(), AGAIN, within_s=8).held


def test_what_is_frozen_cannot_come_back_before_it_thaws() -> None:
    frozen = history(backs=(14.0, 29.0))
    thawed = (*frozen.happenings, Happening(27.0, "undo", "postgres-1", "undone"))
    found = takeover.returns(replace(frozen, happenings=thawed), AGAIN, within_s=5)
    assert found.held and found.figures["returned_s"] == 4.0


def planned(*waits: Attempt, done: bool = True) -> History:
    """Two switchovers of a second each, writes all the while, and these."""
    told = [(10.0, takeover.ASKED), (11.0, f"{takeover.DONE} a to b"), (20.0, takeover.ASKED)]
    told.append((21.0, f"{takeover.DONE} b to a" if done else "was not done: x"))
    happenings = tuple(Happening(at, "note", takeover.SWITCHOVER, text) for at, text in told)
    calm = [attempt(number / 10, "POST") for number in range(300)]
    return History(attempts=(*calm, *waits), calm=(0, 10), ended=30.0, happenings=happenings)


def test_writes_wait_for_a_moment_while_the_primary_changes() -> None:
    short = planned(attempt(10.1, "POST", ended=10.9), attempt(5.0, "POST", ended=8.0))
    found = takeover.paused(short, within_s=1)
    assert found.held and found.figures["worst_s"] == 0.8
    for long in (attempt(9.9, "POST", ended=11.0), attempt(20.9, "POST", ended=22.0)):
        assert not takeover.paused(planned(long), within_s=1).held
    assert takeover.paused(planned(attempt(10.1, ended=12.0)), within_s=1).held, "a read is no write"
    assert not takeover.paused(replace(short, attempts=()), within_s=1).held
    assert not takeover.paused(replace(short, happenings=()), within_s=1).held


def test_every_switchover_is_done() -> None:
    assert takeover.handed_over(planned()).held
    assert not takeover.handed_over(planned(done=False)).held
    assert not takeover.handed_over(replace(planned(), happenings=())).held
