"""Registration, login, the account, tokens."""

from __future__ import annotations

import base64
import time

import httpx
import jwt
import pytest

from tests.example.world import PASSWORD, Person, World, errors, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")

BLANK = "can't be blank"
FIELDS = ("username", "email", "password")


async def test_register_log_in_and_look(world: World) -> None:
    name, email = unique("Zoë 🌱"), f"{unique('mail')}@example.com"
    fields = {"username": name, "email": email, "password": PASSWORD}
    user = (await world.stranger.post("/api/users", {"user": fields}, 201))["user"]
    assert user.keys() == {"email", "token", "username", "bio", "image"}
    assert (user["email"], user["username"], user["bio"], user["image"]) == (email, name, None, None)
    login = {"user": {"email": email, "password": PASSWORD}}
    again = (await world.stranger.post("/api/users/login", login))["user"]
    assert again | {"token": ""} == user | {"token": ""}
    seen = await world.visitor(again["token"]).get("/api/user")
    assert seen == {"user": again}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"username": ""}, {"username": BLANK}),
        ({"username": "   "}, {"username": BLANK}),
        ({"username": None}, {"username": BLANK}),
        ({"username": "a/b"}, {"username": "is invalid"}),
        ({"username": ".."}, {"username": "is invalid"}),
        ({"username": "a\0b"}, {"username": "is invalid"}),
        ({"username": "a" * 65}, {"username": "is too long (maximum is 64 characters)"}),
        ({"email": ""}, {"email": BLANK}),
        ({"email": "nobody"}, {"email": "is invalid"}),
        ({"email": "a@b\0"}, {"email": "is invalid"}),
        ({"email": "a" * 250 + "@b.io"}, {"email": "is too long (maximum is 254 characters)"}),
        ({"password": ""}, {"password": BLANK}),
        ({"password": "short"}, {"password": "is too short (minimum is 8 characters)"}),
        ({"password": "x" * 129}, {"password": "is too long (maximum is 128 characters)"}),
        (
            {"password": "", "email": "", "username": ""},
            dict.fromkeys(("username", "email", "password"), BLANK),
        ),
    ],
)
async def test_registration_names_every_mistake(
    world: World, change: dict[str, object], complaint: dict[str, str]
) -> None:
    fields = {"username": unique(), "email": f"{unique()}@example.com", "password": PASSWORD, **change}
    assert await world.stranger.post("/api/users", {"user": fields}, 422) == errors(**complaint)


async def test_missing_fields_are_blank(world: World) -> None:
    complaints = errors(username=BLANK, email=BLANK, password=BLANK)
    assert await world.stranger.post("/api/users", {"user": {}}, 422) == complaints
    assert await world.stranger.post("/api/users", {}, 422) == errors(user=BLANK)
    assert await world.stranger.post("/api/users", {"user": []}, 422) == errors(user="is not a JSON object")


async def test_a_number_is_no_name(world: World) -> None:
    fields = {"username": 7, "email": f"{unique()}@example.com", "password": PASSWORD}
    answer = await world.stranger.post("/api/users", {"user": fields}, 422)
    assert answer["errors"]["username"][0].startswith("is invalid: expected `str`, got `int`")


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"user":', b'"\xff"', b'{"user": "\\ud800"}'])
async def test_what_is_not_json_is_told_so(world: World, body: bytes) -> None:
    answer = await world.stranger.request("POST", "/api/users", status=422, content=body)
    assert answer == errors(body="is not a JSON object")


async def test_names_and_addresses_are_taken_once(world: World, ann: Person) -> None:
    fields = {"username": ann.name, "email": f"{unique()}@example.com", "password": PASSWORD}
    taken = "has already been taken"
    assert await world.stranger.post("/api/users", {"user": fields}, 409) == errors(username=taken)
    fields = {"username": unique(), "email": ann.email, "password": PASSWORD}
    assert await world.stranger.post("/api/users", {"user": fields}, 409) == errors(email=taken)


async def test_login_refuses(world: World, ann: Person) -> None:
    wrong = errors(credentials="invalid")
    for email in (ann.email, "nobody@example.com"):
        login = {"user": {"email": email, "password": "wrong password"}}
        assert await world.stranger.post("/api/users/login", login, 401) == wrong
    login = {"user": {"email": "", "password": ""}}
    assert await world.stranger.post("/api/users/login", login, 422) == errors(email=BLANK, password=BLANK)


async def test_an_account_changes_field_by_field(ann: Person) -> None:
    user = (await ann.put("/api/user", {"user": {"bio": "I write.", "image": "https://x.io/a.png"}}))["user"]
    assert (user["bio"], user["image"], user["email"]) == ("I write.", "https://x.io/a.png", ann.email)
    user = (await ann.put("/api/user", {"user": {"bio": ""}}))["user"]
    assert (user["bio"], user["image"]) == (None, "https://x.io/a.png")
    user = (await ann.put("/api/user", {"user": {"image": None}}))["user"]
    assert (user["bio"], user["image"]) == (None, None)
    assert (await ann.get("/api/user"))["user"] == user


async def test_a_new_name_is_seen_everywhere_at_once(world: World, ann: Person, bob: Person) -> None:
    article = await ann.write()
    await bob.comment(article["slug"])
    await ann.comment(article["slug"])
    await world.stranger.list(author=ann.name)
    await world.stranger.get(f"/api/profiles/{ann.name}")
    new = unique("renamed")
    await ann.put("/api/user", {"user": {"username": new, "bio": "anew"}})
    author = {"username": new, "bio": "anew", "image": None, "following": False}
    seen = await world.stranger.get(f"/api/articles/{article['slug']}")
    assert seen["article"]["author"] == author
    listed = await world.stranger.get("/api/articles", author=new)
    assert (listed["articles"][0]["author"], listed["articlesCount"]) == (author, 1)
    assert await world.stranger.list(author=ann.name) == ([], 0)
    comments = (await world.stranger.get(f"/api/articles/{article['slug']}/comments"))["comments"]
    assert [comment["author"]["username"] for comment in comments] == [new, bob.name]
    assert (await world.stranger.get(f"/api/profiles/{new}"))["profile"] == author
    await world.stranger.get(f"/api/profiles/{ann.name}", 404)


async def test_a_new_password_and_address_count_at_once(world: World, ann: Person) -> None:
    email = f"{unique('mail')}@example.com"
    await ann.put("/api/user", {"user": {"password": "another horse", "email": email}})
    old = {"user": {"email": ann.email, "password": PASSWORD}}
    await world.stranger.post("/api/users/login", old, 401)
    await world.stranger.post("/api/users/login", {"user": {"email": email, "password": PASSWORD}}, 401)
    await world.stranger.post("/api/users/login", {"user": {"email": email, "password": "another horse"}})


async def test_changes_that_are_refused(ann: Person, bob: Person) -> None:
    for field in ("username", "email", "password"):
        for value in ("", None):
            assert await ann.put("/api/user", {"user": {field: value}}, 422) == errors(**{field: BLANK})
    assert await ann.put("/api/user", {"user": {}}, 422) == errors(user="names nothing to change")
    taken = "has already been taken"
    assert await ann.put("/api/user", {"user": {"username": bob.name}}, 409) == errors(username=taken)
    assert await ann.put("/api/user", {"user": {"email": bob.email}}, 409) == errors(email=taken)
    long = errors(bio="is too long (maximum is 1000 characters)")
    assert await ann.put("/api/user", {"user": {"bio": "x" * 1001}}, 422) == long
    assert await ann.put("/api/user", {"user": {"image": "a\0"}}, 422) == errors(image="is invalid")
    assert (await ann.get("/api/user"))["user"]["username"] == ann.name


async def test_who_has_no_token_is_asked_for_it(world: World) -> None:
    missing = errors(token="is missing")
    for method, path in (
        ("GET", "/api/user"),
        ("PUT", "/api/user"),
        ("PUT", "/api/user/avatar"),
        ("GET", "/api/articles/feed"),
        ("POST", "/api/articles"),
        ("PUT", "/api/articles/unknown"),
        ("DELETE", "/api/articles/unknown"),
        ("POST", "/api/articles/unknown/favorite"),
        ("DELETE", "/api/articles/unknown/favorite"),
        ("POST", "/api/articles/unknown/comments"),
        ("DELETE", "/api/articles/unknown/comments/1"),
        ("POST", "/api/profiles/unknown/follow"),
        ("DELETE", "/api/profiles/unknown/follow"),
    ):
        assert await world.stranger.request(method, path, status=401) == missing


async def test_tokens_that_are_not_good(world: World, ann: Person) -> None:
    token = ann.client.headers["authorization"].partition(" ")[2]
    head, claims, signature = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    key = world.og.secret("jwt")
    forged = [
        "nonsense",
        "",
        f"{head}.{claims}.{signature[::-1]}",
        f"{none}.{claims}.",
        jwt.encode({"sub": "1", "exp": time.time() + 60}, "another key that is long enough to sign", "HS256"),
        jwt.encode({"sub": "1"}, key, "HS256"),
        jwt.encode({"sub": "ann", "exp": int(time.time()) + 60}, key, "HS256"),
    ]
    for bad in forged:
        assert await world.visitor(bad).get("/api/user", 401) == errors(token="is invalid"), bad
        assert await world.visitor(bad).get("/api/articles", 401) == errors(token="is invalid"), bad
    basic = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=world.app), base_url="http://conduit", auth=("ann", "password")
    )
    assert (await basic.get("/api/user")).json() == errors(token="is invalid")
    bearer = await world.stranger.client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    assert bearer.json()["user"]["username"] == ann.name


async def test_a_token_ends_although_it_is_remembered(
    world: World, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann.get("/api/user")
    end = time.time() + world.modules["auth"].LIFETIME_S
    monkeypatch.setattr(world.modules["auth"], "time", lambda: end - 60)
    await ann.get("/api/user")
    monkeypatch.setattr(world.modules["auth"], "time", lambda: end + 60)
    assert await ann.get("/api/user", 401) == errors(token="has expired")
    assert await ann.get("/api/articles", 401) == errors(token="has expired")


async def test_the_token_of_an_account_that_is_gone(world: World, ann: Person) -> None:
    article = await ann.write()
    ghost = world.visitor(world.modules["auth"].new_token(1))
    gone = errors(token="is invalid")
    new = {"article": {"title": "t", "description": "d", "body": "b"}}
    assert await ghost.get("/api/user", 401) == gone
    assert await ghost.put("/api/user", {"user": {"bio": "boo"}}, 401) == gone
    assert await ghost.post("/api/articles", new, 401) == gone
    comment = {"comment": {"body": "boo"}}
    assert await ghost.post(f"/api/articles/{article['slug']}/comments", comment, 401) == gone
    assert await ghost.post(f"/api/articles/{article['slug']}/favorite", status=401) == gone
    assert await ghost.post(f"/api/profiles/{ann.name}/follow", status=401) == gone
    assert (await ann.get(f"/api/articles/{article['slug']}"))["article"]["favoritesCount"] == 0
