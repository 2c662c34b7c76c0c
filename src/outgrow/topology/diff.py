"""The difference of two topologies: what growth turns into steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from outgrow.topology.model import Section, without_secrets


class Change(NamedTuple):
    """One key that differs: its path, its value before and its value after. Printed, it shows no secret."""

    path: str
    before: Any
    after: Any

    def __repr__(self) -> str:
        before, after = (without_secrets(self.path, value) for value in self[1:])
        return f"{self.path}: {before!r} -> {after!r}"


def diff(before: Section, after: Section) -> tuple[Change, ...]:
    """Every key that differs, in the order of the file. Empty exactly when the two are equal."""
    return tuple(_changes(before, after, ""))


def _changes(before: Section, after: Section, path: str) -> Iterator[Change]:
    for name in before.__struct_fields__:
        old, new, place = getattr(before, name), getattr(after, name), f"{path}.{name}" if path else name
        if isinstance(old, Section):
            yield from _changes(old, new, place)
        elif old != new:
            yield Change(place, old, new)
