"""Lists of articles and the feed, from pieces in the cache."""

from collections.abc import Iterable
from heapq import nlargest
from itertools import chain
from typing import Any, NamedTuple

from conduit import changes, og
from conduit.problems import Problem
from conduit.reading import by_id, direct, statements
from conduit.reading.parts import FALSE, NOBODY, TRUE, TTL, by_ids, id_of, ids_of, parts_of, tastes
from conduit.validation import Filters

NEWEST = 300
"""So many of the newest articles are one page of ids in the cache, and what readers see are parts of it."""


class Page(NamedTuple):
    """Which articles are on a page, and how many there are on all pages."""

    articles: tuple[int, ...]
    total: int


class Written(NamedTuple):
    """Of one author: the newest articles, and how many there are of all."""

    newest: tuple[int, ...]
    total: int


NOTHING = Written((), 0)


class Listing(NamedTuple):
    """A page's articles as JSON: `plain` for a reader who knows none of them. For the others `chunks`, with a
    hole after each but the last: whether the reader favours the first, follows its author, favours ..."""

    articles: tuple[int, ...]
    authors: tuple[int, ...]
    chunks: tuple[bytes, ...]
    plain: bytes


async def articles(filters: Filters, viewer: int | None) -> bytes:
    """A list of articles."""
    favorites, follows = await tastes(viewer)
    if favorites is None or follows is None:
        return await direct.articles(filters, viewer)
    try:
        page = await _page(filters)
    except Problem:  # nobody has the name that is asked for
        return b'{"articles":[],"articlesCount":0}'
    return await _shown(page, favorites, follows)


async def feed(viewer: int, limit: int, offset: int) -> bytes:
    """What those whom the caller follows have written."""
    favorites, follows = await tastes(viewer)
    if favorites is None or follows is None:
        return await direct.feed(viewer, limit, offset)

    async def load() -> Page:
        if offset + limit <= by_id.NEWEST_OF_EACH:
            return await _merged(follows, limit, offset)
        size = statements.page_size(limit)
        place = {"viewer": viewer, "offset": offset, "window": offset + size - 1}
        async with og.db.read(key=viewer) as tx:
            return _page_of(await tx.all(statements.feed_ids(size), **place), limit)

    # Another set of people has another hash, and so another key: a key's tags are always the same.
    key = f"feed:{viewer}:{limit}:{offset}:{hash(follows)}"
    depends = chain((changes.follows(viewer),), map(changes.written, follows))
    return await _shown(await og.cache.get(key, load, ttl=TTL, tags=depends), favorites, follows)


async def _merged(authors: Iterable[int], limit: int, offset: int) -> Page:
    """A page of what these have written, from what is kept of each: when somebody publishes, that author is
    asked for once, and not each of the readers' feeds."""
    names = map(changes.written, authors)
    written = (await og.cache.get_many(names, _load_written, ttl=TTL)).values()
    newest = nlargest(offset + limit, chain.from_iterable([each.newest for each in written]))
    return Page(tuple(newest[offset:]), sum([each.total for each in written]))


async def _load_written(names: list[str]) -> dict[str, Written]:
    found: dict[str, Written] = {}
    async with og.db.read() as tx:
        for author_id, total, article_id in await by_ids(tx, by_id.written_pieces, ids_of(names)):
            newest, _ = found.get(changes.written(author_id), NOTHING)
            more = () if article_id is None else (article_id,)
            found[changes.written(author_id)] = Written((*newest, *more), total)
    return found


async def _page(filters: Filters) -> Page:
    """The page of ids. Raises Problem 404 when a user whose articles are asked for does not exist."""
    tag, author, favorited, limit, offset = filters
    if tag is author is favorited is None and offset + limit <= NEWEST:
        newest, total = await _page_at(filters._replace(limit=NEWEST, offset=0), [changes.ARTICLES])
        return Page(newest[offset : offset + limit], total)
    depends = [changes.ARTICLES] if tag is author is favorited is None else []
    if tag is not None:
        depends.append(changes.tagged(tag))
    if author is not None:
        depends += (changes.username(author), changes.written(await id_of(author)))
    if favorited is not None:
        depends += (changes.username(favorited), changes.favorites(await id_of(favorited)))
    return await _page_at(filters, depends)


async def _page_at(filters: Filters, depends: list[str]) -> Page:
    async def load() -> Page:
        statement = statements.article_ids(*filters.shape(), statements.page_size(filters.limit))
        async with og.db.read() as tx:
            return _page_of(await tx.all(statement, **filters.parameters()), filters.limit)

    return await og.cache.get(f"page:{filters}", load, ttl=TTL, tags=depends)


def _page_of(rows: list[Any], limit: int) -> Page:
    """From rows of total and id."""
    return Page(tuple([row[1] for row in rows[:limit] if row[1] is not None]), rows[0][0])


async def _shown(page: Page, favorites: frozenset[int], follows: frozenset[int]) -> bytes:
    """The page as this reader sees it."""
    key = f"listing:{page.articles}"
    listing = await og.cache.get(key, lambda: _listing(page.articles), ttl=TTL)
    shown = listing.plain
    if not (favorites.isdisjoint(listing.articles) and follows.isdisjoint(listing.authors)):
        shown = _filled(listing, favorites, follows)
    return b'{"articles":[%b],"articlesCount":%d}' % (shown, page.total)


def _filled(listing: Listing, favorites: frozenset[int], follows: frozenset[int]) -> bytes:
    whole = [b""] * (2 * len(listing.chunks) - 1)
    whole[::2] = listing.chunks
    whole[1::4] = [TRUE if article in favorites else FALSE for article in listing.articles]
    whole[3::4] = [TRUE if author in follows else FALSE for author in listing.authors]
    return b"".join(whole)


async def _listing(article_ids: tuple[int, ...]) -> Listing:
    """Put together from the articles' own entries: after a change one of them is read again, not twenty."""
    chunks: list[bytes] = []
    between = b""
    parts = await parts_of(article_ids)
    for part in parts:
        chunks += (between + part.head, part.middle)
        between = part.tail + b","
    chunks.append(between[:-1])
    articles, authors = tuple([part.id for part in parts]), tuple([part.author_id for part in parts])
    listing = Listing(articles, authors, tuple(chunks), b"")
    return listing._replace(plain=_filled(listing, NOBODY, NOBODY))
