"""What a user knows, and what contradicts it."""

from __future__ import annotations

import pytest

from outgrow.load.facts import FACTS_MAX, Facts
from outgrow.load.template import MISSING


def test_a_value_must_be_shown_from_then_on() -> None:
    facts = Facts()
    assert facts.check("title", "anything") is None
    facts.set("title", "new")
    assert facts.check("title", "new") is None
    wrong = facts.check("title", "old")
    assert wrong is not None
    assert (wrong.expected, wrong.found) == ("'new'", "'old'")
    assert facts.check("title", MISSING) is not None
    facts.set("title", "newer")
    assert facts.check("title", "new") is not None
    assert facts.checked == 4


def test_members_must_be_among_those_shown_and_removed_ones_not() -> None:
    facts = Facts()
    facts.add("comments", 1, last=100)
    facts.add("comments", 2, last=100)
    assert facts.check("comments", [9, 2, 1]) is None
    assert facts.check("comments", [1]) is not None
    assert facts.check("comments", MISSING) is not None
    facts.remove("comments", 1)
    assert facts.check("comments", [2]) is None
    assert facts.check("comments", [1, 2]) is not None
    facts.add("comments", 1, last=100)
    assert facts.check("comments", [1, 2]) is None


def test_members_may_be_missing_in_a_list_that_was_cut() -> None:
    facts = Facts()
    facts.add("comments", 1, last=100)
    assert facts.check("comments", [9, 8]) is not None
    assert facts.check("comments", [9, 8], cut=True) is None
    facts.remove("comments", 8)
    assert facts.check("comments", [9, 8], cut=True) is not None


def test_only_the_last_members_must_be_shown() -> None:
    facts = Facts()
    for number in range(5):
        facts.add("page", number, last=2)
    assert facts.check("page", [3, 4]) is None
    assert facts.check("page", [2, 3]) is not None


def test_after_a_write_of_unknown_outcome_nothing_is_a_contradiction() -> None:
    facts = Facts()
    facts.set("title", "new")
    facts.doubt("title")
    assert facts.check("title", "whatever") is None
    facts.set("title", "newer")  # the other write may still arrive after this one
    assert facts.check("title", "whatever") is None


def test_a_member_whose_removal_is_unknown_may_be_there_or_not() -> None:
    facts = Facts()
    facts.add("comments", 1, last=100)
    facts.add("comments", 2, last=100)
    facts.doubt_member("comments", 1)
    assert facts.check("comments", [2]) is None
    assert facts.check("comments", [1, 2]) is None
    assert facts.check("comments", [1]) is not None


def test_what_rises_never_falls() -> None:
    facts = Facts()
    assert facts.check_rises("count", 5) is None
    assert facts.check_rises("count", 5) is None
    assert facts.check_rises("count", 7) is None
    assert facts.check_rises("count", 6) is not None
    assert facts.check_rises("count", MISSING) is None
    assert facts.check_rises("count", "6") is None  # of another kind: not comparable


def test_memory_is_bounded_and_the_oldest_fact_goes_first() -> None:
    facts = Facts()
    for number in range(FACTS_MAX + 1):
        facts.set(str(number), number)
        facts.check("1", 1)
    assert facts.check("0", "wrong") is None
    assert facts.check("1", "wrong") is not None


def test_a_member_must_be_comparable() -> None:
    with pytest.raises(TypeError):
        Facts().add("comments", {"id": 1}, last=10)
    facts = Facts()
    facts.add("comments", 1, last=10)
    assert facts.check("comments", [{"id": 1}, 1]) is None
