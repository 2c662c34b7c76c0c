"""Comments, favourites, profiles and who follows whom; and what every answer has in common."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.example.world import Person, World, errors, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_comments_newest_first(world: World, ann: Person, bob: Person) -> None:
    slug = (await ann.write())["slug"]
    path = f"/api/articles/{slug}/comments"
    assert await world.stranger.get(path) == {"comments": []}
    first, second = await bob.comment(slug, "Schön! 🌱"), await ann.comment(slug, "Thanks\nindeed")
    assert list(first) == ["id", "createdAt", "updatedAt", "body", "author"]
    assert first["body"] == "Schön! 🌱" and first["updatedAt"] == first["createdAt"]
    assert first["author"] == {"username": bob.name, "bio": None, "image": None, "following": False}
    assert isinstance(first["id"], int) and second["id"] > first["id"]
    for reader in (world.stranger, bob):
        assert await reader.get(path) == {"comments": [second, first]}
    await ann.post(f"/api/profiles/{bob.name}/follow")
    seen = (await ann.get(path))["comments"]
    assert [comment["author"]["following"] for comment in seen] == [False, True]


async def test_comments_are_deleted_by_who_wrote_them(world: World, ann: Person, bob: Person) -> None:
    slug = (await ann.write())["slug"]
    path = f"/api/articles/{slug}/comments"
    theirs, own = await bob.comment(slug), await ann.comment(slug)
    assert await ann.delete(f"{path}/{theirs['id']}", 403) == errors(comment="forbidden")
    assert await bob.delete(f"{path}/{theirs['id']}") is None
    assert await bob.delete(f"{path}/{theirs['id']}", 404) == errors(comment="not found")
    assert await world.stranger.get(path) == {"comments": [own]}
    assert (await bob.comment(slug))["id"] > own["id"]  # a number is never given twice


@pytest.mark.parametrize("number", ["0", "9", "x", "-1", "1.0", "٣", "2147483648", "9" * 40, "%00"])
async def test_comments_that_are_not_there(ann: Person, number: str) -> None:
    slug = (await ann.write())["slug"]
    await ann.comment(slug)
    answer = await ann.delete(f"/api/articles/{slug}/comments/{number}", 404)
    assert answer == errors(comment="not found")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("", "can't be blank"),
        (None, "can't be blank"),
        ("a\0", "is invalid"),
        ("x" * 10_001, "is too long (maximum is 10000 characters)"),
    ],
)
async def test_comments_that_are_refused(ann: Person, body: str | None, complaint: str) -> None:
    slug = (await ann.write())["slug"]
    path = f"/api/articles/{slug}/comments"
    assert await ann.post(path, {"comment": {"body": body}}, 422) == errors(body=complaint)
    assert await ann.post(path, {"comment": {}}, 422) == errors(body="can't be blank")
    assert await ann.get(path) == {"comments": []}


async def test_favorite_and_back_again_twice(world: World, ann: Person, bob: Person) -> None:
    article = await ann.write()
    path = f"/api/articles/{article['slug']}"
    await world.stranger.get(path)
    for _ in range(2):
        loved = (await bob.post(f"{path}/favorite"))["article"]
        assert loved == article | {"favorited": True, "favoritesCount": 1}
        assert (await bob.get(path))["article"] == loved
        assert (await world.stranger.get(path))["article"] == article | {"favoritesCount": 1}
        assert await world.stranger.list(favorited=bob.name) == ([article["slug"]], 1)
    assert (await ann.post(f"{path}/favorite"))["article"]["favoritesCount"] == 2
    await ann.delete(f"{path}/favorite", 200)
    for _ in range(2):
        assert (await bob.request("DELETE", f"{path}/favorite"))["article"] == article
        assert (await bob.get(path))["article"] == article
        assert await world.stranger.list(favorited=bob.name) == ([], 0)


async def test_a_body_that_nobody_asked_for(ann: Person, bob: Person) -> None:
    slug = (await ann.write())["slug"]
    for path in (f"/api/articles/{slug}/favorite", f"/api/profiles/{ann.name}/follow"):
        for content in (b"", b"{}", b"nonsense", b'{"user": {"email": "x"}}'):
            headers = {"content-type": "application/json"}
            await bob.request("POST", path, content=content, headers=headers)


async def test_follow_and_back_again_twice(world: World, ann: Person, bob: Person) -> None:
    path = f"/api/profiles/{ann.name}"
    stranger = {"profile": {"username": ann.name, "bio": None, "image": None, "following": False}}
    friend = {"profile": stranger["profile"] | {"following": True}}
    assert await world.stranger.get(path) == stranger
    for _ in range(2):
        assert await bob.post(f"{path}/follow") == friend
        assert await bob.get(path) == friend
        assert await world.stranger.get(path) == stranger
        assert await ann.get(f"/api/profiles/{bob.name}") == {
            "profile": stranger["profile"] | {"username": bob.name}
        }
    for _ in range(2):
        assert await bob.delete(f"{path}/follow", 200) == stranger
        assert await bob.get(path) == stranger


async def test_following_oneself(ann: Person) -> None:
    slug = (await ann.write())["slug"]
    assert (await ann.post(f"/api/profiles/{ann.name}/follow"))["profile"]["following"] is True
    assert await ann.list("/api/articles/feed") == ([slug], 1)


async def test_profiles_that_are_not_there(world: World, ann: Person) -> None:
    missing = errors(profile="not found")
    for name in (unique("nobody"), "%00", "x" * 3000):
        assert await world.stranger.get(f"/api/profiles/{name}", 404) == missing
        assert await ann.post(f"/api/profiles/{name}/follow", status=404) == missing
        assert await ann.delete(f"/api/profiles/{name}/follow", 404) == missing


async def test_a_name_of_any_script_has_a_profile(world: World) -> None:
    person = await world.register(unique("日本 語 ñ?#&%"))
    for reader in (person, world.stranger):
        path = quote(person.name, safe="")
        assert (await reader.get(f"/api/profiles/{path}"))["profile"]["username"] == person.name


async def test_paths_and_methods_that_do_not_exist(world: World) -> None:
    assert await world.stranger.get("/api/nothing", 404) == errors(path="not found")
    assert await world.stranger.put("/api/tags", status=405) == errors(method="method not allowed")
    assert "tags" in str(await world.stranger.get("/"))


async def test_pages_of_other_sites_may_ask(world: World, ann: Person) -> None:
    asks = {
        "Origin": "https://demo.realworld.show",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, content-type, outgrow-bookmark",
    }
    for path in ("/api/user", "/api/articles/x", "/avatars/1/64.webp"):
        answer = await world.stranger.client.options(path, headers=asks)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "PUT" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    answer = await ann.client.get("/api/user", headers={"Origin": "https://demo.realworld.show"})
    assert answer.headers["access-control-allow-origin"] == "*"
    refused = await world.stranger.client.get("/api/user", headers={"Origin": "https://demo.realworld.show"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")


async def test_reading_sets_no_cookie(world: World, ann: Person) -> None:
    slug = (await ann.write())["slug"]
    for path in ("/api/articles", f"/api/articles/{slug}", "/api/tags", "/api/articles/feed", "/api/user"):
        answer = await ann.client.get(path)
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-type"] == "application/json"
