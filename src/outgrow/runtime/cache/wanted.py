"""What is asked of the cache: a key, and how long and on what its value depends."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from outgrow.errors import Misuse
from outgrow.runtime.cache.codec import Codec

JITTER = 0.1
"""A lifetime varies by this share."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


class Wanted(NamedTuple):
    """`tags` are all that is known before the load, the key first: an entry depends on that, too."""

    key: str
    tags: tuple[str, ...]
    codec: Codec | None
    life: Life

    @property
    def name(self) -> str:
        """Where all processes find it: with what its value looks like, since what another version of the
        application keeps is another entry."""
        return self.key if self.codec is None else f"{self.codec.id}:{self.key}"


class Life(NamedTuple):
    """How long a value lives, in seconds.

    After `ttl` it may be served for `stale` more, while it is loaded anew or cannot be. What is None lives
    for `missing`.
    """

    ttl: float
    stale: float = 0.0
    missing: float | None = None

    def within(self, most: float) -> Life:
        """The same, and over after so long at the latest."""
        if self.ttl + self.stale <= most:
            return self
        ttl = min(self.ttl, most)
        missing = None if self.missing is None else min(self.missing, most)
        return Life(ttl, min(self.stale, most - ttl), missing)

    def of(self, value: object) -> float:
        """This one's, varied, so that what was stored together does not expire together."""
        ttl = self.ttl if value is not None or self.missing is None else self.missing
        return ttl * random.uniform(1 - JITTER, 1 + JITTER)


@lru_cache(1024)
def life_of(ttl: str | float, stale: str | float, missing: str | float | None = None) -> Life:
    """As it is said. Raises Misuse for what is no duration."""
    return Life(seconds(ttl), seconds(stale), None if missing is None else seconds(missing))


def early(took_s: float, ttl_s: float, readers: float = 1.0) -> float:
    """So much before its time a value is loaded anew, while it is served: by chance, and the more the longer
    its load takes, so that of many who use it one begins and nobody waits. Each of those who read it within
    the time of a load would draw; of so many `readers` the earliest draw is made at once.

    Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015.
    """
    drawn = -math.expm1(math.log(1.0 - random.random()) / readers)
    return min(-took_s * math.log(drawn), ttl_s / 2) if drawn > 0 else ttl_s / 2


def names(key: str, tags: Iterable[str], every: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The key, its tags, and `every`, each once. Raises Misuse for a text in the place of tags."""
    if isinstance(tags, str):
        raise Misuse(f"tags={tags!r} is one text", hint=f"write tags=[{tags!r}]")
    return tuple(dict.fromkeys((key, *tags, *every))) if tags else (key, *every)


def seconds(ttl: str | float) -> float:
    """Raises Misuse for what is no duration."""
    return _seconds(ttl) if isinstance(ttl, str) else ttl


@lru_cache(1024)
def _seconds(ttl: str) -> float:
    found = _DURATION.match(ttl)
    if found is None:
        raise Misuse(f"ttl={ttl!r} is no duration", hint='seconds, or text like "250ms", "30s", "5m", "1h"')
    return float(found[1]) * _UNITS[found[2]]


def prefix_of(key: str) -> str:
    """By which keys are counted."""
    return key.partition(":")[0]
