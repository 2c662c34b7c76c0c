"""Which tags a changed row has, as the application declares it, and what changes have them forgotten.

    @og.cache.changes("articles")
    def shown(row: Mapping[str, Any]) -> Iterable[str]:
        yield f"article:{row['id']}"

    @og.cache.changes("articles", columns=["author"])        # unless an update leaves these as they were
    def listed(row: Mapping[str, Any]) -> Iterable[str]:
        yield f"articles-of:{row['author']}"

Rows come from the database's log (runtime/following.py), so it does not matter who has changed them. What the
application itself has announced with a transaction (shelf.py) is not forgotten once more.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from outgrow.errors import Misuse
from outgrow.runtime.cache.tags import EVERYTHING

TAGS_MAX = 10_000
"""So many different tags are told one by one."""

ROWS_MAX = 20_000
"""So many rows of one transaction are looked at. One that is larger has everything forgotten, which is
cheaper than to look at them all."""

TRANSACTIONS_MAX = 1_000
"""So many may wait to be told; then no more are read."""

Row = Mapping[str, Any]
TagsOf = Callable[[Row], Iterable[str]]

logger = logging.getLogger("outgrow.cache")


class Declared:
    """The functions by table, each with the columns that it is about; None: all of them."""

    def __init__(self) -> None:
        self._functions: dict[str, list[tuple[TagsOf, tuple[str, ...] | None]]] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        """That have one."""
        return tuple(self._functions)

    def wants(self, table: str) -> bool:
        """Whether it has one."""
        return table in self._functions

    def add(self, table: str, function: TagsOf, columns: Iterable[str] | None) -> None:
        """One more."""
        about = None if columns is None else tuple(columns)
        self._functions.setdefault(table, []).append((function, about))

    def tags(self, table: str, old: Row | None, new: Row | None) -> set[str]:
        """Of a row as it was and as it is. Raises what a function raises."""
        found = set[str]()
        for function, columns in self._functions[table]:
            if columns is not None and old is not None and new is not None and _alike(old, new, columns):
                continue
            for row in (old, new):
                if row is not None:
                    tags = function(row)
                    if isinstance(tags, str):
                        raise Misuse(f"{tags!r} is one text", hint="return a list of tags, or yield them")
                    found.update(tags)
        return found


def _alike(old: Row, new: Row, columns: Iterable[str]) -> bool:
    """Whether an update has left these as they were, for certain."""
    return all(name in old and name in new and old[name] == new[name] for name in columns)


class Batch(msgspec.Struct):
    """Transactions that wait to be told. `committed` is the LSN after the last of them, and nothing else that
    was written before `end` is to be told; `since` is when the first was committed, in Unix time."""

    tags: set[str] = msgspec.field(default_factory=set)
    transactions: set[int] = msgspec.field(default_factory=set)
    committed: int = 0
    end: int = 0
    since: float = math.inf

    @property
    def full(self) -> bool:
        """Whether no more are to be added."""
        return len(self.transactions) >= TRANSACTIONS_MAX


class Collector:
    """From the rows of transactions to the tags to be forgotten."""

    def __init__(self, declared: Declared, failed: Callable[[str], None] = lambda table: None) -> None:
        self._declared, self._failed = declared, failed
        self.batch = Batch()
        self._transaction, self._within = 0, False
        self._tags: set[str] = set()
        self._announced: set[str] = set()
        self._rows = 0

    @property
    def everything(self) -> bool:
        """Whether no further row of this transaction matters."""
        return EVERYTHING in self._tags

    def take(self) -> Batch:
        """What is to be told now."""
        batch, self.batch = self.batch, Batch()
        return batch

    def begin(self, transaction: int) -> None:
        """One that has committed follows."""
        self._transaction, self._within = transaction, True
        self._tags, self._announced, self._rows = set(), set(), 0

    def row(self, table: str, old: Row | None, new: Row | None) -> None:
        """It has changed, come or gone."""
        if self.everything:
            return
        self._rows += 1
        try:
            self._tags |= self._declared.tags(table, old, new)
        except Exception as error:  # the application's own code: whatever it is, nothing old may stay
            self._tags = {EVERYTHING}
            self._failed(table)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(
                "changes(%r) has failed in %s, line %s: %s: %s; everything cached is forgotten",
                *(table, frame.filename, frame.lineno, type(error).__name__, error),
            )
        if len(self._tags) > TAGS_MAX or self._rows > ROWS_MAX:
            self._tags = {EVERYTHING}

    def truncated(self) -> None:
        """Nobody knows which rows a table had."""
        self._tags = {EVERYTHING}

    def announced(self, tags: Iterable[str]) -> None:
        """The application has seen to these."""
        self._announced.update(tags)

    def commit(self, end: int, at: float) -> None:
        """It is whole."""
        tags = self._tags if self.everything else self._tags - self._announced
        if tags:
            self.batch.tags |= tags
            self.batch.transactions.add(self._transaction)
            self.batch.committed = end
            self.batch.since = min(self.batch.since, at)
        if len(self.batch.tags) > TAGS_MAX:
            self.batch.tags = {EVERYTHING}
        self._within, self._tags = False, set()
        self.reached(end)

    def reached(self, end: int) -> None:
        """All that was written before this has been told here."""
        if not self._within:
            self.batch.end = max(self.batch.end, end)
