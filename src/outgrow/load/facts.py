"""What one user knows to be true of the application, because it said so to them.

A write that was answered makes a fact: a value, or members of a collection. Every later answer to the
same user that shows the fact has to agree. A user makes one request at a time, so there is no doubt
about which came first; of a write whose outcome is unknown, nothing is asked afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

FACTS_MAX = 1_000
"""A user remembers so many facts; the one unused for longest is forgotten first."""

_REMOVED_MAX = 100


class Contradiction(NamedTuple):
    """An answer that does not agree, in words."""

    expected: str
    found: str


class _Unknown:
    """A write may or may not have happened, or may still happen."""


class _Members:
    __slots__ = ("present", "removed")

    def __init__(self) -> None:
        self.present: OrderedDict[Hashable, None] = OrderedDict()
        self.removed: OrderedDict[Hashable, None] = OrderedDict()


_UNKNOWN = _Unknown()


class Facts:
    """The facts of one user."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._highest: OrderedDict[str, Any] = OrderedDict()
        self.checked = 0

    @property
    def any(self) -> bool:
        """Whether there is something that an answer could contradict."""
        return bool(self._known)

    def set(self, fact: str, value: Any) -> None:
        """It has this value from now on."""
        if self._known.get(fact) is not _UNKNOWN:
            self._keep(self._known, fact, value)

    def add(self, fact: str, member: Any, last: int) -> None:
        """It has this member from now on; the collection shows at least the last so many of them.

        Raises TypeError for one that is no text, number or truth.
        """
        members = self._members(fact)
        members.removed.pop(member, None)
        members.present[member] = None
        while len(members.present) > last:
            members.present.popitem(last=False)

    def remove(self, fact: str, member: Any) -> None:
        """It no longer has this member."""
        members = self._members(fact)
        members.present.pop(member, None)
        members.removed[member] = None
        while len(members.removed) > _REMOVED_MAX:
            members.removed.popitem(last=False)

    def doubt(self, fact: str) -> None:
        """Its value may have changed, or may change yet: no answer can contradict it any more."""
        self._keep(self._known, fact, _UNKNOWN)

    def doubt_member(self, fact: str, member: Any) -> None:
        """This member may have gone."""
        known = self._known.get(fact)
        if isinstance(known, _Members):
            known.present.pop(member, None)
            known.removed.pop(member, None)

    def check(self, fact: str, shown: Any, *, cut: bool = False) -> Contradiction | None:
        """What the answer shows, against what is known. Members may be missing in a list that was `cut`."""
        known = self._known.get(fact, _UNKNOWN)
        if known is _UNKNOWN:
            return None
        self._known.move_to_end(fact)
        self.checked += 1
        if isinstance(known, _Members):
            return _compare(known, shown, cut)
        return None if shown == known else Contradiction(_shown(known), _shown(shown))

    def check_rises(self, fact: str, shown: Any) -> Contradiction | None:
        """What the answer shows, against the highest that an earlier answer has shown."""
        highest = self._highest.get(fact)
        if highest is not None and type(highest) is type(shown):
            self.checked += 1
            if shown < highest:
                return Contradiction(f"at least {_shown(highest)}, which was seen before", _shown(shown))
        if isinstance(shown, int | float | str):
            self._keep(self._highest, fact, shown)
        return None

    def _members(self, fact: str) -> _Members:
        known = self._known.get(fact)
        if not isinstance(known, _Members):
            known = _Members()
        self._keep(self._known, fact, known)
        return known

    @staticmethod
    def _keep(facts: OrderedDict[str, Any], fact: str, value: Any) -> None:
        facts[fact] = value
        facts.move_to_end(fact)
        if len(facts) > FACTS_MAX:
            facts.popitem(last=False)


def _compare(members: _Members, shown: Any, cut: bool) -> Contradiction | None:
    listed = shown if isinstance(shown, list) else []
    there = {each for each in listed if isinstance(each, Hashable)}
    absent = [member for member in members.present if member not in there]
    if absent and not cut:
        return Contradiction(f"{_shown(absent[-1])} among them", _listed(listed))
    left = [member for member in members.removed if member in there]
    return Contradiction(f"{_shown(left[-1])} no longer among them", _listed(listed)) if left else None


def _listed(values: list[Any]) -> str:
    some = ", ".join(map(_shown, values[:10]))
    return f"{len(values)}: {some}{', ...' if len(values) > 10 else ''}" if values else "none"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
