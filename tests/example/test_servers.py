"""Two servers on one database, each with a cache of its own: whoever has written sees it on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.example.world import Person, World, running, settings_for, unique

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_own_writes_are_seen_on_the_other_server(
    world: World, database: str, ann: Person, tmp_path: Path
) -> None:
    async with running(settings_for(database, "memory", tmp_path)) as other:
        slug = (await ann.write(tagList=["common"]))["slug"]
        token = ann.client.headers["authorization"].partition(" ")[2]
        there = Person(other.visitor(token).client, ann.name, ann.email)
        path = f"/api/articles/{slug}"
        before = await there.get(path)  # now it is in the other's cache
        await there.get(f"{path}/comments")
        await there.list(author=ann.name)
        await ann.put(path, {"article": {"body": "anew"}})
        await ann.comment(slug)
        new = await ann.write()
        there.client.cookies = ann.client.cookies
        assert (await there.get(path))["article"]["body"] == "anew" != before["article"]["body"]
        assert len((await there.get(f"{path}/comments"))["comments"]) == 1
        assert (await there.list(author=ann.name))[0] == [new["slug"], slug]
        assert (await there.list(limit=1))[0] == [new["slug"]]


async def test_a_client_may_carry_the_bookmark_in_a_header(
    world: World, database: str, ann: Person, tmp_path: Path
) -> None:
    async with running(settings_for(database, "memory", tmp_path)) as other:
        path = f"/api/profiles/{ann.name}"
        reader = other.visitor()
        assert (await reader.get(path))["profile"]["bio"] is None
        bio = unique("bio")
        answer = await ann.client.put("/api/user", json={"user": {"bio": bio}})
        reader.client.headers["Outgrow-Bookmark"] = answer.headers["outgrow-bookmark"]
        assert (await reader.get(path))["profile"]["bio"] == bio


async def test_an_own_article_at_an_address_that_was_somebody_elses(
    world: World, database: str, ann: Person, bob: Person, tmp_path: Path
) -> None:
    async with running(settings_for(database, "memory", tmp_path)) as other:
        title = unique("title")
        path = f"/api/articles/{(await bob.write(title))['slug']}"
        await bob.comment(path.rpartition("/")[2])
        reader = other.visitor()
        await reader.get(path)
        await reader.get(f"{path}/comments")
        await bob.delete(path)
        own = await ann.write(title)
        reader.client.cookies = ann.client.cookies
        assert (await reader.get(path))["article"] == own
        assert (await reader.get(f"{path}/comments"))["comments"] == []
