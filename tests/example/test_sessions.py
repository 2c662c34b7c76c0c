"""Logged in by a cookie, beside the token."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.example.world import PASSWORD, Person, Visitor, World, errors

pytestmark = pytest.mark.asyncio(loop_scope="session")

SESSION = "/api/session"


def credentials(person: Person, password: str = PASSWORD) -> dict[str, Any]:
    return {"user": {"email": person.email, "password": password}}


async def logged_in(world: World, person: Person) -> Visitor:
    """A browser without a token."""
    browser = world.visitor()
    await browser.post(SESSION, credentials(person))
    return browser


async def test_a_browser_without_a_token(world: World, ann: Person) -> None:
    browser = await logged_in(world, ann)
    assert "outgrow_session" in browser.client.cookies
    user = (await browser.get(SESSION))["user"]
    assert (user["username"], user["email"]) == (ann.name, ann.email)
    assert (await world.visitor(user["token"]).get("/api/user"))["user"]["username"] == ann.name
    await browser.delete(SESSION)
    assert "outgrow_session" not in browser.client.cookies
    assert await browser.get(SESSION, 401) == errors(session="is missing")


async def test_logged_out_is_logged_out_wherever_the_cookie_is(world: World, ann: Person) -> None:
    browser = await logged_in(world, ann)
    copy = world.visitor()
    copy.client.cookies.set("outgrow_session", browser.client.cookies["outgrow_session"])
    await copy.get(SESSION)
    await browser.delete(SESSION)
    assert await copy.get(SESSION, 401) == errors(session="is missing")


async def test_everybody_sees_themselves(world: World, ann: Person, bob: Person) -> None:
    """Answers to people without a token are shared between them. This one must never be."""
    browsers = [await logged_in(world, person) for person in (ann, bob)] * 5
    answers = await asyncio.gather(*(browser.get(SESSION) for browser in browsers))
    assert [answer["user"]["username"] for answer in answers] == [ann.name, bob.name] * 5
    assert await world.stranger.get(SESSION, 401) == errors(session="is missing")


async def test_a_login_gives_a_new_id(world: World, ann: Person) -> None:
    browser = await logged_in(world, ann)
    before = browser.client.cookies["outgrow_session"]
    await browser.post(SESSION, credentials(ann))
    assert browser.client.cookies["outgrow_session"] != before
    old = world.visitor()
    old.client.cookies.set("outgrow_session", before)
    assert await old.get(SESSION, 401) == errors(session="is missing")
    await browser.get(SESSION)


async def test_the_token_login_sets_no_cookie(world: World, ann: Person) -> None:
    browser = world.visitor()
    await browser.post("/api/users/login", credentials(ann))
    await browser.get("/api/articles")
    assert "outgrow_session" not in browser.client.cookies


async def test_login_refuses(world: World, ann: Person) -> None:
    browser = world.visitor()
    wrong = credentials(ann, "wrong password")
    assert await browser.post(SESSION, wrong, 401) == errors(credentials="invalid")
    form = await browser.client.post(SESSION, content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 422 and form.json() == errors(body="must be application/json")
    assert "outgrow_session" not in browser.client.cookies
