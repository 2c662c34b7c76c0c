"""Lists of articles: filters, pages, totals, order, the feed; and the list of tags."""

from __future__ import annotations

from typing import Any

import pytest

from tests.example.world import Person, World, errors, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_newest_first_without_bodies(world: World, ann: Person) -> None:
    written = [await ann.write(tagList=["b", "a"]) for _ in range(3)]
    answer = await world.stranger.get("/api/articles", limit=3)
    for article in written:
        del article["body"]
    assert answer["articles"] == written[::-1]
    assert answer["articlesCount"] >= 3


async def test_twenty_by_default(world: World, ann: Person) -> None:
    slugs = [(await ann.write())["slug"] for _ in range(21)][::-1]
    assert await world.stranger.list(author=ann.name) == (slugs[:20], 21)
    assert await world.stranger.list(author=ann.name, offset=20) == (slugs[20:], 21)
    assert await world.stranger.list(author=ann.name, limit=100) == (slugs, 21)


async def test_pages_fit_together(world: World, ann: Person, bob: Person) -> None:
    tag = unique("tag")
    slugs = [(await ann.write(tagList=[tag]))["slug"] for _ in range(5)][::-1]
    for slug in reversed(slugs):
        await bob.post(f"/api/articles/{slug}/favorite")
    await bob.post(f"/api/profiles/{ann.name}/follow")
    for query in (
        {"tag": tag},
        {"author": ann.name},
        {"favorited": bob.name},
        {"tag": tag, "author": ann.name},
    ):
        for offset in range(0, 7, 2):
            page = await world.stranger.list(**query, limit=2, offset=offset)
            assert page == (slugs[offset : offset + 2], 5)
    for offset in range(0, 7, 2):
        page = await bob.list("/api/articles/feed", limit=2, offset=offset)
        assert page == (slugs[offset : offset + 2], 5)
    assert await world.stranger.list(limit=1, offset=1_000_000) == ([], (await world.stranger.list())[1])


async def test_filters_combine(world: World, ann: Person, bob: Person) -> None:
    one, two = unique("tag"), unique("tag")
    first = (await ann.write(tagList=[one, two]))["slug"]
    second = (await ann.write(tagList=[one]))["slug"]
    third = (await bob.write(tagList=[one]))["slug"]
    for slug in (first, third):
        await bob.post(f"/api/articles/{slug}/favorite")
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({"tag": one}, [third, second, first]),
        ({"tag": two}, [first]),
        ({"tag": one, "author": ann.name}, [second, first]),
        ({"tag": one, "favorited": bob.name}, [third, first]),
        ({"author": ann.name, "favorited": bob.name}, [first]),
        ({"tag": two, "author": ann.name, "favorited": bob.name}, [first]),
        ({"tag": two, "author": bob.name}, []),
        ({"favorited": ann.name}, []),
    ]
    for query, slugs in expected:
        for reader in (world.stranger, ann):
            assert await reader.list(**query) == (slugs, len(slugs))
            assert await reader.list(**query, limit=1) == (slugs[:1], len(slugs))


async def test_names_that_nobody_has(world: World, ann: Person) -> None:
    for reader in (world.stranger, ann):
        for name in (unique("nobody"), "🌱", "a&b=c", "x" * 100):
            for field in ("tag", "author", "favorited"):
                assert await reader.list(**{field: name}) == ([], 0)
    new = unique("later")
    assert await ann.list(author=new) == ([], 0)
    later = await world.register(new)
    slug = (await later.write())["slug"]
    assert await ann.list(author=new) == ([slug], 1)


@pytest.mark.parametrize("path", ["/api/articles", "/api/articles/feed"])
@pytest.mark.parametrize("text", ["0", "-1", "101", "ten", "1.5", "٣", "9" * 400, "1_0", "+1", "1e1"])
async def test_limits_that_are_refused(ann: Person, path: str, text: str) -> None:
    assert await ann.get(path, 422, limit=text) == errors(limit="must be a number from 1 to 100")


@pytest.mark.parametrize("text", ["-1", "one", "1000001", "0x1", "9" * 40])
async def test_offsets_that_are_refused(ann: Person, text: str) -> None:
    refused = errors(offset="must be a number from 0 to 1000000")
    assert await ann.get("/api/articles", 422, offset=text) == refused
    assert await ann.get("/api/articles/feed", 422, offset=text) == refused


async def test_queries_that_are_refused(ann: Person) -> None:
    for field in ("tag", "author", "favorited"):
        assert await ann.get("/api/articles", 422, **{field: "a\0"}) == errors(**{field: "is invalid"})
        long = errors(**{field: "is too long (maximum is 100 characters)"})
        assert await ann.get("/api/articles", 422, **{field: "x" * 101}) == long
    many = errors(query="has more than 20 fields")
    assert await ann.get("/api/articles", 422, **{f"x{n}": "1" for n in range(21)}) == many
    assert await ann.list(limit="", offset="", tag="", unknown="1") == await ann.list()


async def test_the_feed_is_what_the_followed_write(world: World, ann: Person, bob: Person) -> None:
    carla = await world.register()
    old = (await ann.write())["slug"]
    assert await bob.list("/api/articles/feed") == ([], 0)
    await bob.post(f"/api/profiles/{ann.name}/follow")
    assert await bob.list("/api/articles/feed") == ([old], 1)
    new = (await ann.write())["slug"]
    other = (await carla.write())["slug"]
    await bob.write()
    assert await bob.list("/api/articles/feed") == ([new, old], 2)
    await bob.post(f"/api/profiles/{carla.name}/follow")
    assert await bob.list("/api/articles/feed") == ([other, new, old], 3)
    shown = (await bob.get("/api/articles/feed", limit=1))["articles"][0]
    assert "body" not in shown and shown["author"]["following"] is True
    await bob.delete(f"/api/profiles/{ann.name}/follow", 200)
    assert await bob.list("/api/articles/feed") == ([other], 1)
    assert await ann.list("/api/articles/feed") == ([], 0)


async def test_who_reads_sees_their_own_marks(world: World, ann: Person, bob: Person) -> None:
    slugs = [(await ann.write())["slug"] for _ in range(2)]
    await bob.post(f"/api/articles/{slugs[0]}/favorite")
    await bob.post(f"/api/profiles/{ann.name}/follow")
    marks = {ann: (False, False), bob: (True, True), world.stranger: (False, False)}
    for reader, (favorited, following) in marks.items():
        articles = (await reader.get("/api/articles", author=ann.name))["articles"]
        assert [article["favorited"] for article in articles] == [False, favorited]
        assert [article["favoritesCount"] for article in articles] == [0, 1]
        assert {article["author"]["following"] for article in articles} == {following}


async def test_tags_most_popular_first(world: World, ann: Person) -> None:
    rare, common = unique("a"), unique("b")
    await ann.write(tagList=[common, rare])
    slug = (await ann.write(tagList=[common]))["slug"]
    tags = (await world.stranger.get("/api/tags"))["tags"]
    assert tags.index(common) < tags.index(rare)
    await ann.delete(f"/api/articles/{slug}")
    tags = (await world.stranger.get("/api/tags"))["tags"]
    assert tags.index(common) > tags.index(rare)
    assert await world.stranger.get("/api/tags") == {"tags": tags}


async def test_who_follows_or_loves_too_many_to_remember(
    world: World, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way to the same answers, taken in the middle."""
    monkeypatch.setattr(world.modules["reading.parts"], "FAVORITES_MAX", 1)
    monkeypatch.setattr(world.modules["reading.parts"], "FOLLOWS_MAX", 1)
    carla = await world.register()
    slugs = [(await person.write())["slug"] for person in (ann, carla)]
    for person, slug in zip((ann, carla), slugs, strict=True):
        await bob.post(f"/api/profiles/{person.name}/follow")
        await bob.post(f"/api/articles/{slug}/favorite")
    assert await bob.list("/api/articles/feed") == (slugs[::-1], 2)
    assert (await bob.get(f"/api/articles/{slugs[0]}"))["article"]["favorited"] is True
    assert (await bob.get("/api/articles", author=ann.name))["articles"][0]["favorited"] is True
    assert (await bob.get(f"/api/profiles/{ann.name}"))["profile"]["following"] is True
    await ann.comment(slugs[0])
    comments = (await bob.get(f"/api/articles/{slugs[0]}/comments"))["comments"]
    assert comments[0]["author"]["following"] is True


async def test_more_things_than_a_statement_takes(
    world: World, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.modules["reading.by_id"], "ID_COUNTS", (1, 2))
    people = [await world.register() for _ in range(5)]
    slugs = [(await person.write())["slug"] for person in people][::-1]
    for person in people:
        await ann.post(f"/api/profiles/{person.name}/follow")
        await person.comment(slugs[0])
    assert await ann.list("/api/articles/feed") == (slugs, 5)
    assert (await world.stranger.list(limit=5))[0] == slugs
    comments = (await world.stranger.get(f"/api/articles/{slugs[0]}/comments"))["comments"]
    assert [comment["author"]["username"] for comment in comments] == [each.name for each in people][::-1]


async def test_a_feed_beyond_what_is_kept_of_each_author(
    world: World, ann: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache merges feeds from the newest articles of each author: what is older is asked for."""
    by_id = world.modules["reading.by_id"]
    monkeypatch.setattr(by_id, "NEWEST_OF_EACH", 3)
    by_id.written_pieces.cache_clear()
    carla, dora = await world.register(), await world.register()
    for person in (ann, carla, dora):  # dora writes nothing
        await bob.post(f"/api/profiles/{person.name}/follow")
    slugs = [(await person.write())["slug"] for person in (ann, ann, carla, ann, ann, ann)][::-1]
    for limit, offset in ((1, 0), (3, 0), (2, 1), (2, 2), (3, 3), (9, 0), (3, 6)):
        page = await bob.list("/api/articles/feed", limit=limit, offset=offset)
        assert page == (slugs[offset : offset + limit], 6), (limit, offset)
    slugs.insert(0, (await carla.write())["slug"])
    assert await bob.list("/api/articles/feed", limit=3) == (slugs[:3], 7)
    await ann.delete(f"/api/articles/{slugs.pop(1)}")
    assert await bob.list("/api/articles/feed", limit=3) == (slugs[:3], 6)
    by_id.written_pieces.cache_clear()
