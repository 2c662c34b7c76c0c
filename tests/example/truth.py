"""Counts that the application keeps, against what the database holds; and both ways to an answer."""

from __future__ import annotations

from typing import Any

from tests.example.world import World

_COUNTS = {
    "an article's favourites": """
        SELECT a.id, a.favorites_count, count(f.user_id) FROM articles a
        LEFT JOIN favorites f ON f.article_id = a.id GROUP BY a.id, a.favorites_count
        HAVING a.favorites_count <> count(f.user_id)""",
    "a user's articles": """
        SELECT u.id, u.articles_count, count(a.id) FROM users u
        LEFT JOIN articles a ON a.author_id = u.id GROUP BY u.id, u.articles_count
        HAVING u.articles_count <> count(a.id)""",
    "a tag's articles": """
        SELECT t.name, t.articles_count, count(a.article_id) FROM tags t
        LEFT JOIN article_tags a ON a.tag = t.name GROUP BY t.name, t.articles_count
        HAVING t.articles_count <> count(a.article_id)""",
    "all articles": """
        SELECT value, (SELECT count(*) FROM articles) FROM counters
        WHERE name = 'articles' AND value <> (SELECT count(*) FROM articles)""",
    "tags without a count": "SELECT tag FROM article_tags WHERE tag NOT IN (SELECT name FROM tags)",
}


async def assert_counts(world: World) -> None:
    """Every count is what it counts."""
    for what, sql in _COUNTS.items():
        wrong = await world.truth(sql)
        assert not wrong, f"{what}: {wrong[:5]}"


async def assert_same_answers(world: World, viewer: int | None, names: list[str], slugs: list[str]) -> None:
    """What comes from the cache is byte for byte what one statement answers now."""
    direct, pieces = world.modules["reading.direct"], world.modules["reading.pieces"]
    filters = world.modules["validation"].Filters
    asked: list[tuple[str, tuple[Any, ...]]] = [("tags", ())]
    asked += [("articles", (filters(None, None, None, 10, offset), viewer)) for offset in (0, 5)]
    asked += [("articles", (filters("common", None, None, 10, 0), viewer))]
    for name in names:
        asked += [("articles", (filters(None, name, None, 10, 0), viewer))]
        asked += [("articles", (filters(None, None, name, 10, 0), viewer))]
        asked += [("articles", (filters("common", name, None, 10, 0), viewer))]
        asked += [("profile", (name, viewer))]
    for slug in slugs:
        asked += [("article", (slug, viewer)), ("comments", (slug, viewer))]
    if viewer is not None:
        asked += [("feed", (viewer, 5, 0)), ("feed", (viewer, 5, 3))]
    for function, arguments in asked:
        with world.told():
            cached = await _answer(pieces, function, arguments)
            assert cached == await _answer(direct, function, arguments), (function, arguments)
    if viewer is None:
        with world.told():
            await _assert_same_over_http(world, direct, names, slugs)


async def _assert_same_over_http(world: World, direct: Any, names: list[str], slugs: list[str]) -> None:
    """Nor does who asks without a token get anything else."""
    filters = world.modules["validation"].Filters
    asked: list[tuple[str, str, tuple[Any, ...]]] = [("/api/tags", "tags", ())]
    asked += [("/api/articles?limit=10", "articles", (filters(None, None, None, 10, 0), None))]
    for name in names:
        asked += [(f"/api/articles?author={name}", "articles", (filters(None, name, None, 20, 0), None))]
        asked += [(f"/api/profiles/{name}", "profile", (name, None))]
    for slug in slugs:
        asked += [(f"/api/articles/{slug}", "article", (slug, None))]
        asked += [(f"/api/articles/{slug}/comments", "comments", (slug, None))]
    for path, function, arguments in asked:
        answer = await world.stranger.client.get(path)
        expected = await _answer(direct, function, arguments)
        assert answer.status_code == (200 if isinstance(expected, bytes) else 404), path
        assert isinstance(expected, str) or answer.content == expected, path


async def _answer(module: Any, function: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return await getattr(module, function)(*arguments)
    except Exception as problem:
        if type(problem).__name__ != "Problem":
            raise
        return str(problem)
