"""The same thing done by several at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.example.truth import assert_counts
from tests.example.world import PASSWORD, Person, World, errors, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_two_register_the_same_name(world: World) -> None:
    name, email = unique(), f"{unique('mail')}@example.com"
    for field in ("username", "email"):
        fields = [
            {
                "username": name if field == "username" else unique(),
                "email": email if field == "email" else f"{unique('mail')}@example.com",
                "password": PASSWORD,
            }
            for _ in range(4)
        ]
        answers = await asyncio.gather(
            *(world.stranger.client.post("/api/users", json={"user": each}) for each in fields)
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json() == errors(**{field: "has already been taken"})


async def test_two_take_the_same_name(ann: Person, bob: Person) -> None:
    new = {"user": {"username": unique()}}
    answers = await asyncio.gather(*(each.client.put("/api/user", json=new) for each in (ann, bob)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_changes_of_one_account_do_not_undo_each_other(ann: Person) -> None:
    fields: list[dict[str, Any]] = [{"bio": "about me"}, {"image": "https://x.io/me.png"}]
    await asyncio.gather(*(ann.put("/api/user", {"user": each}) for each in fields))
    user = (await ann.get("/api/user"))["user"]
    assert (user["bio"], user["image"]) == ("about me", "https://x.io/me.png")


async def test_titles_at_once_have_addresses_of_their_own(ann: Person, bob: Person) -> None:
    title = unique("race")
    articles = await asyncio.gather(*(person.write(title) for person in (ann, bob) for _ in range(4)))
    assert len({article["slug"] for article in articles}) == 8
    target = unique("target")
    paths = [f"/api/articles/{article['slug']}" for article in articles[:4]]
    changed = await asyncio.gather(*(ann.put(path, {"article": {"title": target}}) for path in paths))
    assert len({answer["article"]["slug"] for answer in changed}) == 4


async def test_favorites_at_once_count_once(world: World, ann: Person) -> None:
    slug = (await ann.write())["slug"]
    people = [await world.register() for _ in range(4)]
    path = f"/api/articles/{slug}/favorite"
    await asyncio.gather(*(person.post(path) for person in people for _ in range(3)))
    article = (await ann.get(f"/api/articles/{slug}"))["article"]
    assert article["favoritesCount"] == 4
    await asyncio.gather(*(person.request("DELETE", path) for person in people[:2] for _ in range(3)))
    assert (await ann.get(f"/api/articles/{slug}"))["article"]["favoritesCount"] == 2
    for person in people:
        assert (await ann.list(favorited=person.name))[1] == (0 if person in people[:2] else 1)
    await assert_counts(world)


async def test_follows_at_once(ann: Person, bob: Person) -> None:
    await ann.write()
    path = f"/api/profiles/{ann.name}/follow"
    await asyncio.gather(*(bob.post(path) for _ in range(4)))
    assert (await bob.list("/api/articles/feed"))[1] == 1
    await asyncio.gather(*(bob.delete(path, 200) for _ in range(4)))
    assert (await bob.list("/api/articles/feed"))[1] == 0


async def test_comments_at_once_have_numbers_of_their_own(ann: Person, bob: Person) -> None:
    slug = (await ann.write())["slug"]
    comments = await asyncio.gather(*(person.comment(slug) for person in (ann, bob) for _ in range(5)))
    numbers = {comment["id"] for comment in comments}
    assert len(numbers) == 10
    seen = (await ann.get(f"/api/articles/{slug}/comments"))["comments"]
    assert [comment["id"] for comment in seen] == sorted(numbers, reverse=True)


async def test_deleted_while_it_is_loved_and_discussed(world: World, ann: Person) -> None:
    """Whoever comes too late is told; nobody waits for ever, and no count goes astray."""
    people = [await world.register() for _ in range(3)]
    tag = unique("tag")
    for _ in range(5):
        slugs = [(await ann.write(tagList=[tag, "common"]))["slug"] for _ in range(2)]
        calls: list[tuple[str, Person, str, Any]] = []
        for slug in slugs:
            calls += [("DELETE", ann, f"/api/articles/{slug}", None)] * 2
        for person in people:
            for slug in slugs:
                path = f"/api/articles/{slug}"
                calls += [("POST", person, f"{path}/favorite", None)]
                calls += [("POST", person, f"{path}/comments", {"comment": {"body": "late?"}})]
                calls += [("DELETE", person, f"{path}/favorite", None)]
        calls += [("POST", ann, "/api/articles", _article([tag, "common"]))]
        answers = await asyncio.gather(
            *(who.client.request(method, path, json=body) for method, who, path, body in reversed(calls))
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 204, 404}
        assert [answer.status_code for answer in answers].count(204) == 2
    assert (await world.stranger.list(tag=tag))[1] == 5
    await assert_counts(world)


def _article(tags: list[str]) -> dict[str, Any]:
    return {"article": {"title": unique("t"), "description": "d", "body": "b", "tagList": tags}}
