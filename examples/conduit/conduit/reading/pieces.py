"""Every answer from pieces in the cache, put together without a statement.

    which articles        a page of ids            changes when one is written, deleted, tagged anew
    what they look like   JSON with holes for      changes when one of them is edited or favourited,
                          what the reader does     or its author renamed
    what the reader does  two sets of ids          changes when they favourite or follow

A write invalidates only what it has changed (changes.py): after a favourite, that article is read again
by its id, and its reader's set; no list is searched for anew. The answers are byte for byte those of
direct.py; a test holds the two against each other.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from msgspec import Raw

from conduit import changes, og
from conduit.blocks import Reader
from conduit.documents import HOLE, Comment, Profile, Summary, encode, encode_with_holes
from conduit.problems import Problem, not_found
from conduit.reading import direct, statements
from conduit.validation import Filters

V = TypeVar("V")

TTL = "1m"
"""Where several servers keep caches of their own, one hears of another's write after this time at the
latest; the reader who wrote sees it at once, everywhere."""

FAVORITES_MAX = 5_000
FOLLOWS_MAX = 200
"""Who has more than that is answered by direct.py: a set of every size does not belong into memory."""

NEWEST = 300
"""So many of the newest articles are one page of ids in the cache, and what readers see are parts of it."""

TRUE, FALSE = b"true", b"false"
NOBODY: frozenset[int] = frozenset()


# --- Articles, as lists show them and one at a time.


class Part(NamedTuple):
    """An article without its body as JSON: up to `favorited`, up to its author's `following`, the rest."""

    id: int
    author_id: int
    head: bytes
    middle: bytes
    tail: bytes

    def by(self, author: bytes) -> "Part":
        """The same with its author's profile, where there was a hole."""
        return self._replace(middle=self.middle + author, tail=b"}" + self.tail)


class Text(NamedTuple):
    """Which article an address leads to, and its body as a JSON text."""

    article_id: int
    body: bytes


async def article(slug: str, viewer: int | None) -> bytes:
    """One article. Raises Problem 404."""
    favorites, follows = await _tastes(viewer)
    if favorites is None or follows is None:
        return await direct.article(slug, viewer)
    article_id, body = await _text(slug)
    part = await _part(article_id)
    # The body stands before `favorited`, where `head` ends.
    return b'{"article":%b"body":%b,"favorited":%b%b%b%b}' % (
        part.head[: -len(b'"favorited":')],
        body,
        TRUE if article_id in favorites else FALSE,
        part.middle,
        TRUE if part.author_id in follows else FALSE,
        part.tail,
    )


async def _text(slug: str) -> Text:
    async def load() -> Text:
        async with og.db.read() as tx:
            row = await tx.one(statements.ARTICLE_AT, slug=slug)
        if row is None:
            raise not_found("article")  # not kept: whoever makes up addresses fills no cache
        return Text(row.id, encode(row.body))

    return await og.cache.get(changes.slug(slug), load, ttl=TTL)


async def _part(article_id: int) -> Part:
    found = await _parts([article_id])
    if not found:
        raise not_found("article")  # deleted since its address was looked up
    return found[0]


async def _parts(article_ids: Iterable[int]) -> list[Part]:
    """In their order; one that is no more is left out."""
    names = [changes.article(article_id) for article_id in article_ids]
    parts = (await og.cache.get_many(names, _load_parts, ttl=TTL)).values()
    authors = await _profiles([part.author_id for part in parts])
    return [part.by(authors[part.author_id]) for part in parts]


async def _load_parts(names: list[str]) -> dict[str, Part]:
    async with og.db.read() as tx:
        rows = await _by_ids(tx, statements.summary_pieces, _ids_of(names))
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


# --- Other single things.


async def profile(username: str, viewer: int | None) -> bytes:
    """A profile. Raises Problem 404."""
    _, follows = await _tastes(viewer)
    if follows is None:
        return await direct.profile(username, viewer)
    user_id = await _user_id(username)
    following = TRUE if user_id in follows else FALSE
    return b"".join((b'{"profile":', await _profile(user_id), following, b"}}"))


async def _user_id(username: str) -> int:
    async def load() -> int:
        async with og.db.read() as tx:
            row = await tx.one(statements.USER_NAMED, username=username)
        if row is None:
            raise not_found("profile")
        return int(row[0])

    return await og.cache.get(changes.username(username), load, ttl=TTL)


async def _profile(user_id: int) -> bytes:
    found = await _profiles([user_id])
    if not found:
        raise not_found("profile")
    return found[user_id]


async def tags() -> bytes:
    """The tags, most popular first."""
    return await og.cache.get(changes.TAGS, direct.tags, ttl=TTL)


async def comments(slug: str, viewer: int | None) -> bytes:
    """The comments on an article, newest first. Raises Problem 404."""
    _, follows = await _tastes(viewer)
    if follows is None:
        return await direct.comments(slug, viewer)
    written = await _comments(slug)
    authors = await _profiles([author_id for author_id, _, _ in written])
    shown = [
        b"".join((head, authors[author_id], TRUE if author_id in follows else FALSE, b"}", tail))
        for author_id, head, tail in written
    ]
    return b"".join((b'{"comments":[', b",".join(shown), b"]}"))


async def _comments(slug: str) -> list[tuple[int, bytes, bytes]]:
    async def load() -> list[tuple[int, bytes, bytes]]:
        async with og.db.read() as tx:
            rows = await tx.all(statements.COMMENT_PIECES, slug=slug)
        if not rows:
            raise not_found("article")
        return [_comment(*row) for row in rows if row[0] is not None]

    return await og.cache.get(changes.comments(slug), load, ttl=TTL)


def _comment(author_id: int, number: int, created_at: str, body: str) -> tuple[int, bytes, bytes]:
    head, tail = encode_with_holes(Comment(number, created_at, created_at, body, HOLE))
    return author_id, head, tail


# --- Lists.


class Page(NamedTuple):
    """Which articles are on a page, and how many there are on all pages."""

    articles: tuple[int, ...]
    total: int


class Listing(NamedTuple):
    """A page's articles as JSON: `plain` for a reader who knows none of them, `parts` for the others."""

    articles: frozenset[int]
    authors: frozenset[int]
    parts: list[Part]
    plain: bytes


async def articles(filters: Filters, viewer: int | None) -> bytes:
    """A list of articles."""
    favorites, follows = await _tastes(viewer)
    if favorites is None or follows is None:
        return await direct.articles(filters, viewer)
    try:
        page = await _page(filters)
    except Problem:  # nobody has the name that is asked for
        return b'{"articles":[],"articlesCount":0}'
    return await _shown(page, favorites, follows)


async def feed(viewer: int, limit: int, offset: int) -> bytes:
    """What those whom the caller follows have written."""
    favorites, follows = await _tastes(viewer)
    if favorites is None or follows is None:
        return await direct.feed(viewer, limit, offset)

    async def load() -> Page:
        size = statements.page_size(limit)
        place = {"viewer": viewer, "offset": offset, "window": offset + size - 1}
        async with og.db.read(key=viewer) as tx:
            return _page_of(await tx.all(statements.feed_ids(size), **place), limit)

    # Another set of people has another hash, and so another key: a key's tags are always the same.
    key = f"feed:{viewer}:{limit}:{offset}:{hash(follows)}"
    depends = chain((changes.follows(viewer),), map(changes.written, follows))
    return await _shown(await og.cache.get(key, load, ttl=TTL, tags=depends), favorites, follows)


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
        depends += (changes.username(author), changes.written(await _user_id(author)))
    if favorited is not None:
        depends += (changes.username(favorited), changes.favorites(await _user_id(favorited)))
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
        shown = _joined(listing.parts, favorites, follows)
    return b'{"articles":[%b],"articlesCount":%d}' % (shown, page.total)


def _joined(parts: list[Part], favorites: frozenset[int], follows: frozenset[int]) -> bytes:
    return b",".join(
        [
            b"%b%b%b%b%b"
            % (
                head,
                TRUE if article_id in favorites else FALSE,
                middle,
                TRUE if author_id in follows else FALSE,
                tail,
            )
            for article_id, author_id, head, middle, tail in parts
        ]
    )


async def _listing(article_ids: tuple[int, ...]) -> Listing:
    """Put together from the articles' own entries: after a change one of them is read again, not twenty."""
    parts = await _parts(article_ids)
    return Listing(
        frozenset([part.id for part in parts]),
        frozenset([part.author_id for part in parts]),
        parts,
        _joined(parts, NOBODY, NOBODY),
    )


def _ids_of(names: list[str]) -> list[int]:
    return [int(name.partition(":")[2]) for name in names]


async def _profiles(user_ids: Iterable[int]) -> dict[int, bytes]:
    """Profiles as JSON up to whether the reader follows them."""
    wanted = set(user_ids)
    found = await og.cache.get_many([changes.profile(each) for each in wanted], _load_profiles, ttl=TTL)
    return {each: found[name] for each in wanted if (name := changes.profile(each)) in found}


async def _load_profiles(names: list[str]) -> dict[str, bytes]:
    async with og.db.read() as tx:
        rows = await _by_ids(tx, statements.profile_pieces, _ids_of(names))
    return {
        changes.profile(user_id): encode_with_holes(Profile(username, bio, image, HOLE))[0]
        for user_id, username, bio, image in rows
    }


async def _by_ids(tx: Reader, statement: Callable[[int], statements.Query], ids: list[int]) -> list[Any]:
    rows: list[Any] = []
    for parameters in statements.batches(ids):
        rows += await tx.all(statement(len(parameters)), **parameters)
    return rows


# --- What one reader does.


async def _tastes(viewer: int | None) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """Which articles the reader has favourited and whom they follow; None where that is too many to keep."""
    if viewer is None:
        return NOBODY, NOBODY

    async def load_favorites() -> frozenset[int] | None:
        return await _load_set(statements.FAVORITES_OF, viewer, FAVORITES_MAX)

    async def load_follows() -> frozenset[int] | None:
        return await _load_set(statements.FOLLOWED_BY, viewer, FOLLOWS_MAX)

    favorites = await og.cache.get(changes.favorites(viewer), load_favorites, ttl=TTL)
    return favorites, await og.cache.get(changes.follows(viewer), load_follows, ttl=TTL)


async def _load_set(statement: statements.Query, viewer: int, most: int) -> frozenset[int] | None:
    async with og.db.read(key=viewer) as tx:
        rows = await tx.all(statement, viewer=viewer, most=most + 1)
    return frozenset(row[0] for row in rows) if len(rows) <= most else None
