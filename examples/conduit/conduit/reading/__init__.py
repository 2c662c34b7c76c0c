"""What the API answers to those who read. There are two ways to the same answers:

    direct.py   one statement for each answer: right for every size, and with `[cache] engine = "off"`
    pieces.py   the cache keeps what answers are made of: no statement for what has been seen lately

Each is a module with the same functions. Answers are bytes, JSON already.
"""

from typing import Protocol

from conduit import og
from conduit.reading import direct, pieces
from conduit.validation import Filters


class Answers(Protocol):
    """What both can answer. Raises Problem 404 for what does not exist."""

    async def articles(self, filters: Filters, viewer: int | None) -> bytes: ...
    async def feed(self, viewer: int, limit: int, offset: int) -> bytes: ...
    async def article(self, slug: str, viewer: int | None) -> bytes: ...
    async def comments(self, slug: str, viewer: int | None) -> bytes: ...
    async def profile(self, username: str, viewer: int | None) -> bytes: ...
    async def tags(self) -> bytes: ...


answers: Answers = pieces if og.cache.enabled else direct
