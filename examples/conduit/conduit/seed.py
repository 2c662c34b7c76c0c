"""Data to play with and to measure with, at any size: `outgrow seed -- --users 1000 --articles 10000`.

Few people are followed by many and few articles are loved by many, as in life (Zipf's law). The same
--seed makes the same people, texts and ties. Everybody's password is "password". One transaction: after
an interruption nothing is there.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate, islice
from random import Random
from typing import Any, NamedTuple

import sqlalchemy as sa
from msgspec import json
from sqlalchemy import Executable

from conduit.auth import hash_password
from conduit.blocks import Writer
from conduit.counts import COUNT_ARTICLE, COUNT_TAG
from conduit.slugs import slugify
from conduit.tables import article_tags, articles, comments, favorites, follows, users
from conduit.words import FIRST_NAMES, LAST_NAMES, SENTENCES, TAGS, TOPICS, VERBS
from outgrow import Outgrow

CHUNK = 2_000
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
COUNT_USERS = sa.select(sa.func.count()).select_from(users)
COUNT_ARTICLES = sa.select(sa.func.count()).select_from(articles)
TAGS_EACH = (0, 1, 2, 2, 3, 3, 4)
USUAL = {"users": 100, "articles": 500, "favorites": 2_500, "comments": 1_000, "follows": 1_500}


class Sizes(NamedTuple):
    """How much of everything, and which of all possible worlds."""

    users: int
    articles: int
    favorites: int
    comments: int
    follows: int
    seed: int


class Ties(NamedTuple):
    """Who does what, as numbers of users and articles from 0."""

    authors: list[int]
    tags: list[list[str]]
    follows: set[tuple[int, int]]
    favorites: set[tuple[int, int]]
    comments: list[tuple[int, int]]


async def seed(og: Outgrow, argv: list[str]) -> None:
    sizes = _sizes(argv)
    random = Random(sizes.seed)
    ties = _ties(sizes, random)
    password = await hash_password("password")
    user_ids = [og.ids.next() for _ in range(sizes.users)]
    article_ids = [og.ids.next() for _ in range(sizes.articles)]
    async with og.db.write() as tx:
        present = await tx.value(COUNT_USERS), await tx.value(COUNT_ARTICLES)
        await _put(tx, "users", sa.insert(users), _users(user_ids, present[0], ties, password, random))
        await _put(tx, "follows", sa.insert(follows), _follows(user_ids, ties))
        await _put(
            tx, "articles", sa.insert(articles), _articles(user_ids, article_ids, present[1], ties, random)
        )
        await _put(tx, "tags", COUNT_TAG, _tags(ties))
        await _put(tx, "tags of articles", sa.insert(article_tags), _article_tags(article_ids, ties))
        await _put(tx, "favorites", sa.insert(favorites), _favorites(user_ids, article_ids, ties))
        await _put(tx, "comments", sa.insert(comments), _comments(user_ids, article_ids, ties, random))
        await tx.execute(COUNT_ARTICLE, by=sizes.articles)
    _say('done; everybody\'s password is "password"')


def _sizes(argv: list[str]) -> Sizes:
    parser = argparse.ArgumentParser(prog="outgrow seed --", description=__doc__, add_help=True)
    for name, usual in USUAL.items():
        parser.add_argument(f"--{name}", type=_count, metavar="N", help=f"{usual} unless given")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another number, another world")
    given = vars(parser.parse_args(argv))
    sizes = Sizes(**{name: USUAL.get(name, 0) if size is None else size for name, size in given.items()})
    most = {
        "favorites": sizes.users * sizes.articles // 2,
        "follows": sizes.users * max(sizes.users - 1, 0) // 2,
    }
    # Few people have fewer ties: what was not asked for is no mistake.
    sizes = sizes._replace(
        **{name: min(USUAL[name], each // 2) for name, each in most.items() if given[name] is None}
    )
    if not sizes.users and any(sizes[1:5]):
        parser.error("without --users nobody is there to write, to follow or to love")
    if not sizes.articles and (sizes.favorites or sizes.comments):
        parser.error("without --articles there is nothing to love or to comment on")
    for name, each in most.items():
        if getattr(sizes, name) > each:
            parser.error(f"--{name} is more than half of all there could be")
    return sizes


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


# --- Who does what.


def _ties(sizes: Sizes, random: Random) -> Ties:
    people, things = _zipf(sizes.users, random), _zipf(sizes.articles, random)
    return Ties(
        authors=[people() for _ in range(sizes.articles)],
        tags=[_choose_tags(random) for _ in range(sizes.articles)],
        follows=_pairs(sizes.follows, lambda: random.randrange(sizes.users), people, ordered=True),
        favorites=_pairs(sizes.favorites, lambda: random.randrange(sizes.users), things, ordered=False),
        comments=[(random.randrange(sizes.users), things()) for _ in range(sizes.comments)],
    )


def _zipf(count: int, random: Random) -> Callable[[], int]:
    """Draws numbers below `count`; the one of rank r is drawn in proportion to 1 / r^0.8."""
    ranked = random.sample(range(count), count)
    weights = list(accumulate(1 / rank**0.8 for rank in range(1, count + 1)))
    return lambda: random.choices(ranked, cum_weights=weights)[0]


def _pairs(
    count: int, left: Callable[[], int], right: Callable[[], int], *, ordered: bool
) -> set[tuple[int, int]]:
    """So many different pairs; of two of the same kind (`ordered`), nobody with themselves."""
    found: set[tuple[int, int]] = set()
    while len(found) < count:
        pair = left(), right()
        if not (ordered and pair[0] == pair[1]):
            found.add(pair)
    return found


def _choose_tags(random: Random) -> list[str]:
    """Tags by rank, too: the first of the list are the common ones."""
    count = random.choice(TAGS_EACH)
    return sorted({TAGS[int(len(TAGS) * random.random() ** 2)] for _ in range(count)})


# --- Rows. Counts are right from the start, since everything is known before the first row is written.


def _users(
    ids: list[int], present: int, ties: Ties, password: str, random: Random
) -> Iterator[dict[str, Any]]:
    written = Counter(ties.authors)
    for number, user_id in enumerate(ids):
        first, last = random.choice(FIRST_NAMES), random.choice(LAST_NAMES)
        username = f"{first.lower()}-{last.lower()}-{present + number + 1}"
        yield {
            "id": user_id,
            "username": username,
            "email": f"{username}@example.com",
            "password_hash": password,
            "bio": random.choice((None, *SENTENCES)),
            "image": None,
            "articles_count": written[number],
        }


def _follows(user_ids: list[int], ties: Ties) -> Iterator[dict[str, Any]]:
    for follower, followee in sorted(ties.follows):
        yield {"follower_id": user_ids[follower], "followee_id": user_ids[followee]}


def _articles(
    user_ids: list[int], ids: list[int], present: int, ties: Ties, random: Random
) -> Iterator[dict[str, Any]]:
    loved = Counter(article for _, article in ties.favorites)
    for number, article_id in enumerate(ids):
        title = f"{random.choice(VERBS)} {random.choice(TOPICS)}"
        moment = _moment(number, len(ids))
        yield {
            "id": article_id,
            "author_id": user_ids[ties.authors[number]],
            "slug": f"{slugify(title)}-{present + number + 1}",
            "title": title,
            "description": random.choice(SENTENCES),
            "tag_list": json.encode(ties.tags[number]).decode(),
            "created_at": moment,
            "updated_at": moment,
            "favorites_count": loved[number],
            "body": _body(random),
        }


def _body(random: Random) -> str:
    paragraphs = (" ".join(random.choices(SENTENCES, k=6)) for _ in range(random.randint(1, 5)))
    return "\n\n".join(paragraphs)


def _tags(ties: Ties) -> Iterator[dict[str, Any]]:
    for name, count in sorted(Counter(tag for each in ties.tags for tag in each).items()):
        yield {"name": name, "articles_count": count}


def _article_tags(ids: list[int], ties: Ties) -> Iterator[dict[str, Any]]:
    for article_id, names in zip(ids, ties.tags, strict=True):
        for name in names:
            yield {"tag": name, "article_id": article_id}


def _favorites(user_ids: list[int], article_ids: list[int], ties: Ties) -> Iterator[dict[str, Any]]:
    for user, article in sorted(ties.favorites):
        yield {"user_id": user_ids[user], "article_id": article_ids[article]}


def _comments(
    user_ids: list[int], article_ids: list[int], ties: Ties, random: Random
) -> Iterator[dict[str, Any]]:
    numbers: Counter[int] = Counter()
    for place, (user, article) in enumerate(ties.comments):
        numbers[article] += 1
        yield {
            "article_id": article_ids[article],
            "number": numbers[article],
            "author_id": user_ids[user],
            "created_at": _moment(len(ties.comments) + place, 2 * len(ties.comments)),
            "body": random.choice(SENTENCES),
        }


def _moment(place: int, count: int) -> str:
    """The time of one of `count` things, spread evenly over a year."""
    moment = BEGIN + timedelta(days=365) * (place / count)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- Writing them.


async def _put(tx: Writer, what: str, statement: Executable, rows: Iterable[dict[str, Any]]) -> None:
    """Store the rows, many at a time, and tell how far it is."""
    waiting, done = iter(rows), 0
    while chunk := list(islice(waiting, CHUNK)):
        await tx.many(statement, chunk)
        done += len(chunk)
        if sys.stdout.isatty():
            _say(f"\r{what}: {done:,}", end="")
    _say(f"\r{what}: {done:,}" if sys.stdout.isatty() else f"{what}: {done:,}")


def _say(line: str, end: str = "\n") -> None:
    sys.stdout.write(line + end)
    sys.stdout.flush()
