"""The data that every version serves: made once from a seed, written through an adapter for each schema.

Who follows whom, who writes and what is liked are Zipf-like: a few get most of it. Ids are 1, 2, 3 ...
in the order of creation; an adapter may map them to its own, since no answer but a comment shows one.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple, TypeVar

Key = TypeVar("Key", int, str)

PASSWORD = "correct horse battery"
FIRST_MS = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp() * 1000)
ARTICLE_EVERY_MS = 1_800_000
TAGS = 120
WORDS = (
    *("account", "balance", "cache", "database", "engine", "failure", "gateway", "history", "index"),
    *("journal", "kernel", "latency", "memory", "network", "observer", "partition", "query", "replica"),
    *("server", "throughput", "upgrade", "value", "window", "zone", "almost", "before", "every", "grows"),
    *("holds", "keeps", "later", "measures", "never", "often", "proves", "quickly", "reads", "serves"),
    *("takes", "under", "waits", "writes"),
)


@dataclass(frozen=True)
class Size:
    """How many of each."""

    users: int
    articles: int
    favourites: int
    follows: int
    comments: int


FULL = Size(users=1_000, articles=10_000, favourites=50_000, follows=20_000, comments=20_000)
TINY = Size(users=30, articles=150, favourites=400, follows=120, comments=150)


class User(NamedTuple):
    """A row. `created_ms` here and below is Unix time in milliseconds."""

    id: int
    username: str
    email: str
    bio: str | None
    image: str | None
    created_ms: int


class Article(NamedTuple):
    """A row; its tags are sorted and there may be none."""

    id: int
    slug: str
    title: str
    description: str
    body: str
    tags: tuple[str, ...]
    author: int
    created_ms: int
    updated_ms: int


class Comment(NamedTuple):
    """A row."""

    id: int
    article: int
    author: int
    body: str
    created_ms: int


@dataclass(frozen=True)
class Data:
    """Everything. A pair in `favourites` is (user, article), one in `follows` (follower, followed)."""

    users: list[User]
    articles: list[Article]
    comments: list[Comment]
    favourites: list[tuple[int, int]]
    follows: list[tuple[int, int]]

    @cached_property
    def favourites_count(self) -> dict[int, int]:
        """Article -> how many like it."""
        return _count(article for _, article in self.favourites)

    @cached_property
    def articles_count(self) -> dict[int, int]:
        """User -> how many articles are theirs."""
        return _count(article.author for article in self.articles)

    @cached_property
    def tags(self) -> dict[str, int]:
        """Tag -> how many articles carry it, in alphabetical order."""
        return dict(sorted(_count(tag for article in self.articles for tag in article.tags).items()))

    @property
    def newest_ms(self) -> int:
        """No row is younger."""
        return max(
            *(article.updated_ms for article in self.articles),
            *(comment.created_ms for comment in self.comments),
        )


def make(size: Size, seed: int = 1) -> Data:
    """The same data for the same size and seed."""
    rng = random.Random(seed)
    users = [_user(number, rng) for number in range(1, size.users + 1)]
    authors = Zipf(size.users, 0.6)
    articles = [_article(number, authors.draw(rng), rng) for number in range(1, size.articles + 1)]
    return Data(
        users=users,
        articles=articles,
        comments=_comments(size, rng),
        favourites=_pairs(size.favourites, size.users, Zipf(size.articles, 0.7), rng),
        follows=_pairs(size.follows, size.users, Zipf(size.users, 0.8), rng, same=False),
    )


class Zipf:
    """Draws 1 .. count, where the number of rank r is r ** -exponent as frequent as the first.

    Ranks are spread over the numbers, so that the popular ones are not the oldest.
    """

    def __init__(self, count: int, exponent: float) -> None:
        self._numbers = list(range(1, count + 1))
        random.Random(count).shuffle(self._numbers)
        self._weights: list[float] = []
        total = 0.0
        for rank in range(1, count + 1):
            total += rank**-exponent
            self._weights.append(total)

    def draw(self, rng: random.Random) -> int:
        """One number."""
        return rng.choices(self._numbers, cum_weights=self._weights)[0]


_TAG_RANKS = Zipf(TAGS, 0.8)


def _user(number: int, rng: random.Random) -> User:
    bio = _sentence(rng, 12) if rng.random() < 0.7 else None
    image = f"https://images.example/{number}.jpg" if rng.random() < 0.8 else None
    name = f"{rng.choice(WORDS)}_{number}"
    return User(number, name, f"{name}@mail.example", bio, image, FIRST_MS - 86_400_000 + number * 1000)


def _article(number: int, author: int, rng: random.Random) -> Article:
    title = _sentence(rng, 6)
    created = FIRST_MS + number * ARTICLE_EVERY_MS + rng.randrange(1000)
    updated = created if rng.random() < 0.8 else created + rng.randrange(60_000, 1_000_000)
    tagged = tags(rng)
    slug = f"{title.lower().rstrip('.').replace(' ', '-')}-{number:08x}"
    body = "\n\n".join(" ".join(_sentence(rng, 12) for _ in range(4)) for _ in range(rng.randrange(2, 6)))
    return Article(number, slug, title, _sentence(rng, 14), body, tagged, author, created, updated)


def tags(rng: random.Random) -> tuple[str, ...]:
    """None to five tags, sorted."""
    numbers = {_TAG_RANKS.draw(rng) for _ in range(rng.randrange(6))}
    return tuple(sorted(f"{WORDS[number % len(WORDS)]}{number}" for number in numbers))


def _comments(size: Size, rng: random.Random) -> list[Comment]:
    articles = Zipf(size.articles, 0.5)
    start = FIRST_MS + (size.articles + 1) * ARTICLE_EVERY_MS
    return [
        Comment(
            number,
            articles.draw(rng),
            rng.randint(1, size.users),
            _sentence(rng, 18),
            start + number * 1000 + rng.randrange(1000),
        )
        for number in range(1, size.comments + 1)
    ]


def _pairs(
    wanted: int, users: int, others: Zipf, rng: random.Random, *, same: bool = True
) -> list[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    while len(found) < wanted:
        user, other = rng.randint(1, users), others.draw(rng)
        if same or user != other:
            found.add((user, other))
    return sorted(found)


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def _count(keys: Iterable[Key]) -> dict[Key, int]:
    counts: dict[Key, int] = defaultdict(int)
    for key in keys:
        counts[key] += 1
    return dict(counts)
