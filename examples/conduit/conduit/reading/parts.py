"""What answers are made of, each in the cache by itself: articles, profiles, and what one reader does.

There are thousands of each, so they are structs without `gc`, which Python's collector of garbage passes by.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Raw, Struct

from conduit import changes, og
from conduit.blocks import Reader
from conduit.documents import HOLE, Profile, Summary, encode_with_holes
from conduit.problems import not_found
from conduit.reading import by_id, statements

TTL = "1h"
"""Every write is heard of, so this is long. Where it is not (several servers without a shared cache), Outgrow
keeps nothing for longer than `[cache] unheard`, a minute, and shows sessions nothing of it."""

FAVORITES_MAX = 5_000
FOLLOWS_MAX = 200
"""Who has more than that is answered by direct.py: a set of every size does not belong into memory."""

TRUE, FALSE = b"true", b"false"
NOBODY: frozenset[int] = frozenset()


class Part(Struct, frozen=True, gc=False):
    """An article without its body as JSON: up to `favorited`, up to its author's `following`, the rest."""

    id: int
    author_id: int
    head: bytes
    middle: bytes
    tail: bytes

    def by(self, author: bytes) -> "Part":
        """The same with its author's profile, where there was a hole."""
        return Part(self.id, self.author_id, self.head, self.middle + author, b"}" + self.tail)


async def parts_of(article_ids: Iterable[int]) -> list[Part]:
    """In their order; one that is no more is left out."""
    names = [changes.article(article_id) for article_id in article_ids]
    parts = (await og.cache.get_many(names, _load_parts, ttl=TTL)).values()
    authors = await profiles([part.author_id for part in parts])
    return [part.by(authors[part.author_id]) for part in parts]


async def _load_parts(names: list[str]) -> dict[str, Part]:
    async with og.db.read() as tx:
        rows = await by_ids(tx, by_id.summary_pieces, ids_of(names))
    return {changes.article(row.id): _as_part(row) for row in rows}


def _as_part(row: Any) -> Part:
    document = Summary(
        row.slug,
        row.title,
        row.description,
        Raw(row.tag_list),
        row.created_at,
        row.updated_at,
        HOLE,
        row.favorites_count,
        HOLE,
    )
    return Part(row.id, row.author_id, *encode_with_holes(document))


async def profiles(user_ids: Iterable[int]) -> dict[int, bytes]:
    """Profiles as JSON up to whether the reader follows them."""
    wanted = set(user_ids)
    found = await og.cache.get_many([changes.profile(each) for each in wanted], _load_profiles, ttl=TTL)
    return {each: found[name] for each in wanted if (name := changes.profile(each)) in found}


async def _load_profiles(names: list[str]) -> dict[str, bytes]:
    async with og.db.read() as tx:
        rows = await by_ids(tx, by_id.profile_pieces, ids_of(names))
    return {
        changes.profile(user_id): encode_with_holes(Profile(username, bio, image, HOLE))[0]
        for user_id, username, bio, image in rows
    }


async def by_ids(tx: Reader, statement: Callable[[int], statements.Query], ids: list[int]) -> list[Any]:
    rows: list[Any] = []
    for parameters in by_id.batches(ids):
        rows += await tx.all(statement(len(parameters)), **parameters)
    return rows


async def id_of(username: str) -> int:
    async def load() -> int:
        async with og.db.read() as tx:
            row = await tx.one(by_id.USER_NAMED, username=username)
        if row is None:
            raise not_found("profile")
        return int(row[0])

    return await og.cache.get(changes.username(username), load, ttl=TTL)


def ids_of(names: list[str]) -> list[int]:
    return [int(name.partition(":")[2]) for name in names]


async def tastes(viewer: int | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """Which articles the reader has favourited and whom they follow; None where that is too many to keep."""
    if viewer is None:
        return NOBODY, NOBODY

    async def load_favorites() -> frozenset[int] | None:
        return await _load_set(by_id.FAVORITES_OF, viewer, FAVORITES_MAX)

    async def load_follows() -> frozenset[int] | None:
        return await _load_set(by_id.FOLLOWED_BY, viewer, FOLLOWS_MAX)

    favorites = await og.cache.get(changes.favorites(viewer), load_favorites, ttl=TTL)
    return favorites, await og.cache.get(changes.follows(viewer), load_follows, ttl=TTL)


async def _load_set(statement: statements.Query, viewer: int, most: int) -> frozenset[int] | None:
    async with og.db.read(key=viewer) as tx:
        rows = await tx.all(statement, viewer=viewer, most=most + 1)
    return frozenset(row[0] for row in rows) if len(rows) <= most else None
