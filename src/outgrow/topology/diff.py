"""The difference of two topologies: what growth turns into steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from outgrow.topology.model import Topology


class Change(NamedTuple):
    """One key that differs: its path, its value before and its value after."""

    path: str
    before: Any
    after: Any


def diff(before: Topology, after: Topology) -> tuple[Change, ...]:
    """Every key that differs, in the order of the file. Empty exactly when the two are equal."""
    return tuple(_changes(before, after, ""))


def _changes(before: msgspec.Struct, after: msgspec.Struct, path: str) -> list[Change]:
    found = []
    for name in before.__struct_fields__:
        old, new, place = getattr(before, name), getattr(after, name), f"{path}.{name}" if path else name
        if isinstance(old, msgspec.Struct):
            found += _changes(old, new, place)
        elif old != new:
            found.append(Change(place, old, new))
    return found
