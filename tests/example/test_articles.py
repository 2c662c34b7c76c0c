"""Articles, one at a time: writing, changing, deleting, their addresses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.example.world import Person, World, errors, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")

BLANK = "can't be blank"
MOMENT = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$")


async def test_an_article_is_what_was_written(world: World, ann: Person) -> None:
    title = unique("Ünder the Sea! 海")
    written = await ann.write(
        title, description="Short", body="Long\n" * 3, tagList=["training", "dragons", " dragons "]
    )
    assert list(written) == [
        "slug",
        "title",
        "description",
        "tagList",
        "createdAt",
        "updatedAt",
        "body",
        "favorited",
        "favoritesCount",
        "author",
    ]
    assert written["title"] == title and written["body"] == "Long\n" * 3
    assert written["tagList"] == ["dragons", "training"]
    assert MOMENT.match(written["createdAt"]) and written["updatedAt"] == written["createdAt"]
    assert (written["favorited"], written["favoritesCount"]) == (False, 0)
    assert written["author"] == {"username": ann.name, "bio": None, "image": None, "following": False}
    for reader in (ann, world.stranger):
        assert await reader.get(f"/api/articles/{written['slug']}") == {"article": written}


async def test_without_tags_the_list_is_empty(ann: Person) -> None:
    assert (await ann.write())["tagList"] == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"title": ""}, {"title": BLANK}),
        ({"title": " \n"}, {"title": BLANK}),
        ({"description": ""}, {"description": BLANK}),
        ({"body": ""}, {"body": BLANK}),
        ({"title": None, "body": None}, {"title": BLANK, "body": BLANK}),
        ({"title": "a\0b"}, {"title": "is invalid"}),
        ({"title": "x" * 201}, {"title": "is too long (maximum is 200 characters)"}),
        ({"description": "x" * 1001}, {"description": "is too long (maximum is 1000 characters)"}),
        ({"body": "x" * 100_001}, {"body": "is too long (maximum is 100000 characters)"}),
        ({"tagList": None}, {"tagList": BLANK}),
    ],
)
async def test_what_is_wrong_is_told(ann: Person, change: dict[str, Any], complaint: dict[str, str]) -> None:
    article = {"title": "t", "description": "d", "body": "b", **change}
    assert await ann.post("/api/articles", {"article": article}, 422) == errors(**complaint)


@pytest.mark.parametrize(
    "tags", ["dragons", [""], ["\0"], [7], [None], ["x" * 51], [str(n) for n in range(21)]]
)
async def test_tags_that_are_refused(ann: Person, tags: Any) -> None:
    article = {"title": "t", "description": "d", "body": "b", "tagList": tags}
    answer = await ann.post("/api/articles", {"article": article}, 422)
    assert answer["errors"].keys() == {"tagList"} or tags == "dragons"
    written = await ann.write()
    await ann.put(f"/api/articles/{written['slug']}", {"article": {"tagList": tags}}, 422)
    assert (await ann.get(f"/api/articles/{written['slug']}"))["article"] == written


async def test_missing_fields_are_blank(ann: Person) -> None:
    blank = errors(title=BLANK, description=BLANK, body=BLANK)
    assert await ann.post("/api/articles", {"article": {}}, 422) == blank


async def test_the_longest_that_is_allowed(ann: Person) -> None:
    written = await ann.write("海" * 200, description="ö" * 1000, body="🌱" * 100_000, tagList=["ß" * 50] * 3)
    seen = (await ann.get(f"/api/articles/{written['slug']}"))["article"]
    assert seen == written and len(seen["body"]) == 100_000 and seen["tagList"] == ["ß" * 50]


async def test_a_request_that_is_too_large(ann: Person) -> None:
    article = {"title": "t", "description": "d", "body": "x" * 1_000_000}
    too_large = errors(body="is too large (maximum is 1000000 bytes)")
    assert await ann.post("/api/articles", {"article": article}, 413) == too_large


async def test_equal_titles_have_addresses_of_their_own(ann: Person, bob: Person) -> None:
    title = unique("Same Title")
    articles = [await person.write(title) for person in (ann, bob, ann)]
    slugs = [article["slug"] for article in articles]
    assert len(set(slugs)) == 3 and slugs[0] == title.lower().replace(" ", "-")
    for article in articles:
        assert (await ann.get(f"/api/articles/{article['slug']}"))["article"] == article


async def test_titles_that_make_no_address_or_a_reserved_one(ann: Person) -> None:
    for title in ("!!!", "feed", "Feed!"):
        article = await ann.write(title)
        assert (await ann.get(f"/api/articles/{article['slug']}"))["article"] == article


async def test_the_address_follows_the_title(ann: Person, bob: Person) -> None:
    taken = await bob.write(unique("taken"))
    old = await ann.write()
    await ann.get(f"/api/articles/{old['slug']}")
    await ann.comment(old["slug"])
    new = (await ann.put(f"/api/articles/{old['slug']}", {"article": {"title": taken["title"]}}))["article"]
    assert new["slug"].startswith(f"{taken['slug']}-")
    await ann.get(f"/api/articles/{old['slug']}", 404)
    await ann.get(f"/api/articles/{old['slug']}/comments", 404)
    assert (await ann.get(f"/api/articles/{new['slug']}"))["article"] == new
    assert len((await ann.get(f"/api/articles/{new['slug']}/comments"))["comments"]) == 1
    again = (await ann.put(f"/api/articles/{new['slug']}", {"article": {"title": taken["title"]}}))["article"]
    assert again["slug"] == new["slug"]
    assert (await bob.get(f"/api/articles/{taken['slug']}"))["article"] == taken


async def test_a_change_leaves_the_rest(world: World, ann: Person) -> None:
    old = await ann.write(tagList=["a", "b"])
    path = f"/api/articles/{old['slug']}"
    listed = await world.stranger.get("/api/articles", author=ann.name)
    new = (await ann.put(path, {"article": {"body": "anew"}}))["article"]
    assert new["updatedAt"] > old["updatedAt"]
    assert new == old | {"body": "anew", "updatedAt": new["updatedAt"]}
    new = (await ann.put(path, {"article": {"description": "other"}}))["article"]
    assert (await world.stranger.get(path))["article"] == new
    listed["articles"][0] |= {"description": "other", "updatedAt": new["updatedAt"]}
    assert await world.stranger.get("/api/articles", author=ann.name) == listed


async def test_tags_stay_change_and_go(world: World, ann: Person) -> None:
    first, second, third = unique("tag"), unique("tag"), unique("tag")
    slug = (await ann.write(tagList=[first, second]))["slug"]
    path = f"/api/articles/{slug}"
    assert await world.stranger.list(tag=first) == ([slug], 1)
    changed = (await ann.put(path, {"article": {"tagList": [third, second]}}))["article"]
    assert changed["tagList"] == sorted([second, third])
    assert await world.stranger.list(tag=first) == ([], 0)
    assert await world.stranger.list(tag=third) == ([slug], 1)
    tags = (await world.stranger.get("/api/tags"))["tags"]
    assert first not in tags and second in tags and third in tags
    assert (await ann.put(path, {"article": {"body": "x"}}))["article"]["tagList"] == changed["tagList"]
    assert (await ann.put(path, {"article": {"tagList": []}}))["article"]["tagList"] == []
    assert await world.stranger.list(tag=third) == ([], 0)
    assert third not in (await world.stranger.get("/api/tags"))["tags"]


async def test_changes_that_are_refused(ann: Person) -> None:
    path = f"/api/articles/{(await ann.write())['slug']}"
    for field in ("title", "description", "body", "tagList"):
        assert await ann.put(path, {"article": {field: None}}, 422) == errors(**{field: BLANK})
    for field in ("title", "description", "body"):
        assert await ann.put(path, {"article": {field: ""}}, 422) == errors(**{field: BLANK})


async def test_somebody_elses_article(ann: Person, bob: Person) -> None:
    path = f"/api/articles/{(await ann.write())['slug']}"
    assert await bob.put(path, {"article": {"body": "mine"}}, 403) == errors(article="forbidden")
    assert await bob.delete(path, 403) == errors(article="forbidden")
    await ann.get(path)


async def test_articles_that_are_not_there(ann: Person) -> None:
    missing = errors(article="not found")
    for slug in (unique("nowhere"), "%00", "a%00b", "x" * 3000, "%F0%9F%8C%B1"):
        path = f"/api/articles/{slug}"
        assert await ann.get(path, 404) == missing
        assert await ann.put(path, {"article": {"body": "x"}}, 404) == missing
        assert await ann.delete(path, 404) == missing
        assert await ann.get(f"{path}/comments", 404) == missing
        assert await ann.post(f"{path}/comments", {"comment": {"body": "x"}}, 404) == missing
        assert await ann.delete(f"{path}/comments/1", 404) == missing
        assert await ann.post(f"{path}/favorite", status=404) == missing
        assert await ann.delete(f"{path}/favorite", 404) == missing


async def test_a_deleted_article_takes_everything_with_it(world: World, ann: Person, bob: Person) -> None:
    tag = unique("tag")
    kept = await ann.write(tagList=[tag])
    article = await ann.write(tagList=[tag])
    path = f"/api/articles/{article['slug']}"
    for person in (ann, bob):
        await person.comment(article["slug"])
        await person.post(f"{path}/favorite")
    await bob.post(f"/api/profiles/{ann.name}/follow")
    both = ([article["slug"], kept["slug"]], 2)
    for query in ({"tag": tag}, {"author": ann.name}):
        assert await world.stranger.list(**query) == both
    assert await bob.list("/api/articles/feed") == both
    assert await world.stranger.list(favorited=bob.name) == ([article["slug"]], 1)
    before = (await world.stranger.list())[1]
    assert await ann.delete(path) is None
    assert (await world.stranger.list())[1] == before - 1
    one = ([kept["slug"]], 1)
    for query in ({"tag": tag}, {"author": ann.name}):
        assert await world.stranger.list(**query) == one
    assert await bob.list("/api/articles/feed") == one
    for person in (ann, bob):
        assert await world.stranger.list(favorited=person.name) == ([], 0)
    await world.stranger.get(path, 404)
    await world.stranger.get(f"{path}/comments", 404)
    await ann.delete(path, 404)
    again = await ann.write(article["title"])
    assert again["slug"] == article["slug"]
    assert (await world.stranger.get(path))["article"] == again
    assert (await bob.get(f"{path}/comments"))["comments"] == []
