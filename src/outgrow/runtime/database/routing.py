"""Decisions of the database tier, as pure functions."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any, Literal

Level = Literal["strong", "session", "eventual"]
"""How fresh a read must be. strong: the primary. session: not older than this session's bookmark.
eventual: whatever a node has. With one server they are the same."""


def merge(answers: Sequence[Sequence[Any]], order_by: tuple[str, str] | None, limit: int | None) -> list[Any]:
    """The rows of all shards as one list. Each answer must be ordered by `order_by` already."""
    if order_by is None:
        rows = chain.from_iterable(answers)
    else:
        column, direction = order_by
        rows = heapq.merge(*answers, key=lambda row: row[column], reverse=direction == "desc")  # type: ignore[assignment]
    return list(islice(rows, limit))
