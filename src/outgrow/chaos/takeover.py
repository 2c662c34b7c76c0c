"""Checkers of what happens when a database loses its primary, once or many times. Pure, as verdict.py is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf

from outgrow.chaos.history import Attempt, History
from outgrow.chaos.verdict import CASES_MAX, Finding, has_failed, in_words, kinds_of

NOT_REPLICATED_S = 1.0
"""Acknowledged so shortly before the fault, a write may not have reached a replica."""

TOLD_LOST = "status 409"
"""The answer to a session that a failover has lost something of (errors.LostWrite)."""

SWITCHOVER, ASKED, DONE = "switchover", "is asked for", "from"
"""Who it was in the happenings that tell of a planned change, and how those of its two ends begin."""


def writes_again(history: History, faults: Sequence[float], *, within_s: float) -> Finding:
    """After each fault writes are answered again within so long, and none that is sent later fails."""
    promise = f"Writes succeed again within {within_s:g} s."
    writes = [each for each in history.attempts if not each.reads]
    bad = [each for each in writes if has_failed(each)]
    took = [_took(writes, begins, ends) for begins, ends in pairwise([*faults, inf])]
    known = sorted(each for each in took if each is not None)
    figures: dict[str, float | None] = {"faults": len(took), "failed": len(bad), "within_s": within_s}
    if not known or None in took:
        return Finding(promise, False, "after a fault no write was answered any more", figures)
    figures |= {"worst_s": known[-1], "median_s": known[(len(known) - 1) // 2]}
    text = f"they were back after {known[-1]:.2f} s"
    if len(known) > 1:
        text += f" at worst, {figures['median_s']:.2f} s in the middle of {len(known)}"
    text += f"; {len(bad):,} of {len(writes):,} failed"
    text += f" ({kinds_of(bad)})" if bad else ""
    return Finding(promise, known[-1] <= within_s, text, figures)


def _took(writes: Sequence[Attempt], begins: float, ends: float) -> float | None:
    """From the fault to the first answer to a write that was sent after it, and after which none failed.

    What was under way when the next one began failed because of that one.
    """
    sent = [each for each in writes if begins <= each.sent < ends]
    last = max((each.sent for each in sent if has_failed(each) and each.ended < ends), default=begins)
    answered = [each.ended for each in sent if not has_failed(each) and each.sent >= last]
    return round(max(min(answered), last) - begins, 3) if answered else None


def reads_go_on(history: History, faults: Sequence[float], *, told_lost: bool = False) -> Finding:
    """No read fails but those that were under way at a fault.

    With `told_lost` a session may also be told that something of it is lost.
    """
    promise = "No read fails but those under way at the fault."
    reads = [each for each in history.attempts if each.reads]
    bad = [each for each in reads if has_failed(each)]
    told = [each for each in bad if told_lost and each.failure == TOLD_LOST]
    under_way = [each for each in bad if any(each.under_way(fault) for fault in faults)]
    wrong = [each for each in bad if each not in told and each not in under_way]
    text = f"{len(bad):,} of {len(reads):,} reads failed, {len(under_way):,} of them under way"
    text += f", {len(told):,} of sessions that were told of a lost write" if told else ""
    text += f" ({kinds_of(wrong)})" if wrong else ""
    figures = {"reads": len(reads), "failed": len(bad), "wrong": len(wrong), "told_lost": len(told)}
    cases = [in_words(each) for each in wrong[:CASES_MAX]]
    return Finding(promise, bool(reads) and not wrong, text, figures, cases)


def lost(history: History, faults: Sequence[float]) -> Finding:
    """With asynchronous replicas an acknowledged mark may be lost, but of the last moment before a fault."""
    promise = f"No write is lost that was acknowledged {NOT_REPLICATED_S:g} s before the fault."
    marks = [each for each in history.attempts if each.key and not each.reads and not has_failed(each)]
    gone = [each for each in marks if history.found.get(each.key, 0) == 0]
    wrong = [each for each in gone if not any(0 <= at - each.ended <= NOT_REPLICATED_S for at in faults)]
    text = f"{len(gone):,} of {len(marks):,} acknowledged marks are lost, {len(wrong):,} of them older"
    figures = {"acknowledged": len(marks), "lost": len(gone), "older": len(wrong)}
    cases = [in_words(each) for each in wrong[:CASES_MAX]]
    return Finding(promise, bool(marks) and not wrong, text, figures, cases)


def returns(history: History, note: str, *, within_s: float) -> Finding:
    """What was hurt is back in its place after each fault, which is noted with this text.

    The time counts from the last thing that was done to it: what is frozen can't come back before it thaws.
    """
    promise = f"It is back as a replica within {within_s:g} s."
    done = [each.at for each in history.happenings if each.kind in ("fault", "undo")]
    backs = [each.at for each in history.happenings if each.kind == "note" and each.text == note]
    took = [round(back - max(at for at in done if at <= back), 3) for back in backs]
    faults = len(history.moments("fault"))
    if not took or len(took) < faults:
        text = f"it was not, {faults - len(took)} of {faults} times"
        return Finding(promise, False, text, {"returned_s": None})
    figures = {"returned_s": max(took), "within_s": within_s}
    return Finding(promise, max(took) <= within_s, f"it was after {max(took):.1f} s", figures)


def handed_over(history: History) -> Finding:
    """Every switchover that was asked for was done."""
    said = [each.text for each in history.happenings if each.kind == "note" and each.node == SWITCHOVER]
    asked, done = said.count(ASKED), [each for each in said if each.startswith(f"{DONE} ")]
    figures = {"asked": asked, "done": len(done)}
    text = "; ".join(each for each in said if each != ASKED) or "none was done"
    return Finding("Another node becomes the primary.", 0 < asked == len(done), text, figures)


def paused(history: History, *, within_s: float) -> Finding:
    """No write that was sent around a switchover waited longer than this.

    Those count that were sent before it was done and answered after it was asked for; where there is none,
    nothing was shown.
    """
    promise = f"Writes wait for less than {within_s:g} s."
    notes = [each for each in history.happenings if each.kind == "note" and each.node == SWITCHOVER]
    stretches = [
        (one.at, other.at) for one, other in pairwise(notes) if one.text == ASKED and other.text != ASKED
    ]
    writes = [each for each in history.attempts if not each.reads]
    took = [
        max(
            (each.ended - each.sent for each in writes if each.sent <= ends and each.ended >= begins),
            default=inf,
        )
        for begins, ends in stretches
    ]
    if not took or inf in took:
        return Finding(promise, False, "no write was sent meanwhile", {"within_s": within_s})
    known = sorted(took)
    figures = {"worst_s": round(known[-1], 3), "median_s": round(known[(len(known) - 1) // 2], 3)}
    text = f"the longest wait was {figures['worst_s']:.2f} s"
    if len(known) > 1:
        text += f" at worst, {figures['median_s']:.2f} s in the middle of {len(known)}"
    return Finding(promise, known[-1] < within_s, text, {**figures, "within_s": within_s})
