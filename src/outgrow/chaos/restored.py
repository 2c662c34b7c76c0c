"""Checkers of what a restore to a moment gives back. Pure, as verdict.py is."""

from __future__ import annotations

from collections.abc import Collection

from outgrow.chaos.history import Attempt, History
from outgrow.chaos.verdict import CASES_MAX, Finding, has_failed, in_words

UNCERTAIN_S = 0.01
"""Around the moment: the drill and the database read the clock one after the other."""


def nothing_missing(history: History, moment: float) -> Finding:
    """Every mark that was acknowledged until the moment is in what was restored, once."""
    promise = "What was acknowledged until the moment is in what was restored, each write once."
    known = [each for each in _marks(history) if not has_failed(each) and each.ended <= moment - UNCERTAIN_S]
    wrong = [each for each in known if history.restored.get(each.key) != 1]
    text = f"{len(known) - len(wrong):,} of {len(known):,} marks are there"
    return _finding(promise, known, wrong, text, history)


def nothing_later(history: History, moment: float) -> Finding:
    """No mark whose write began after it is."""
    promise = "Nothing that was written after the moment is in it."
    later = [each for each in _marks(history) if each.key in history.restored]
    later = [each for each in later if each.sent >= moment + UNCERTAIN_S]
    wrong = [each for each in later if history.restored[each.key]]
    text = f"{len(wrong):,} of {len(later):,} later marks are in it"
    return _finding(promise, later, wrong, text, history)


def _marks(history: History) -> list[Attempt]:
    return [each for each in history.attempts if each.key and not each.reads]


def _finding(
    promise: str, looked: Collection[Attempt], wrong: Collection[Attempt], text: str, history: History
) -> Finding:
    """Where there were none, nothing was shown."""
    figures = {"looked_for": len(looked), "wrong": len(wrong)}
    cases = [f"{in_words(each)}: there {history.restored.get(each.key, 0)} times" for each in wrong]
    return Finding(promise, bool(looked) and not wrong, text, figures, cases[:CASES_MAX])
