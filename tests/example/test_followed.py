"""What psql changes in the example's tables its readers are shown: the shared cache follows (rows.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from outgrow import endpoints
from outgrow.runtime.database.postgres_publication import publish
from outgrow.topology.parse import parse_file
from tests.example.world import ROOT, World, running, settings_for
from tests.support.cache import CacheServer
from tests.support.following import drop_slot, reads, until
from tests.support.postgres import PostgresServer

FOLLOWED = parse_file(ROOT / "stages" / "06.toml").cache.follow_changes


@pytest.fixture
async def followed(
    postgres_server: PostgresServer, postgres_template: str, tmp_path: Path
) -> AsyncIterator[World]:
    """The application over a database whose changes its shared cache follows."""
    url, cache = postgres_server.create_database(postgres_template), CacheServer(application="conduit")
    await publish(url, None, FOLLOWED)
    path = settings_for(url, "memory", tmp_path)
    document = endpoints.read(path)
    plain = document.database.shards[0].nodes[0].url
    secrets = endpoints.read_secrets(str(document.secrets_file))
    passwords = {"*": postgres_server.password, "cache": cache.password, "changes": postgres_server.password}
    endpoints.write(str(document.secrets_file), replace(secrets, passwords=passwords))
    shared = endpoints.Cache(engine="redis", url=cache.url, changes_url=plain)
    endpoints.write(path, replace(document, cache=shared))
    try:
        cache.start()
        async with running(path) as world:
            await reads(world.og)
            yield world
        drop_slot(postgres_server, "conduit_changes")
    finally:
        cache.stop()


async def test_what_psql_changes_every_reader_is_shown(
    followed: World, postgres_server: PostgresServer
) -> None:
    database = followed.og.endpoints.database.shards[0].nodes[0].url.rpartition("/")[2]
    ann, bob, anybody = await followed.register(), await followed.register(), followed.stranger
    slug = (await ann.write("by ann", tagList=["a"]))["slug"]
    await ann.comment(slug, "first")
    article = f"SELECT id FROM articles WHERE slug = '{slug}'"
    (by_ann,), (by_bob,) = (
        postgres_server.execute(f"SELECT id FROM users WHERE username = '{each.name}'", database)[0]
        for each in (ann, bob)
    )

    async def shown(path: str, *place: Any, to: Any = anybody) -> Any:
        found = await to.get(path)
        for key in place:
            found = found[key]
        return found

    at, comments, profile = (
        f"/api/articles/{slug}",
        f"/api/articles/{slug}/comments",
        f"/api/profiles/{ann.name}",
    )
    for statement, wanted, *place in (
        ("UPDATE articles SET title = 'other'", "other", at, "article", "title"),
        ("UPDATE articles SET title = 'again'", "again", "/api/articles", "articles", 0, "title"),
        ("UPDATE articles SET body = 'longer'", "longer", at, "article", "body"),
        (f"UPDATE users SET bio = 'writes' WHERE id = {by_ann}", "writes", profile, "profile", "bio"),
        ("UPDATE users SET bio = 'reads'", "reads", at, "article", "author", "bio"),
        ("UPDATE comments SET body = 'second'", "second", comments, "comments", 0, "body"),
        ("DELETE FROM comments", [], comments, "comments"),
        ("UPDATE articles SET favorites_count = 9", 9, at, "article", "favoritesCount"),
        ("UPDATE tags SET articles_count = 0", [], "/api/tags", "tags"),
    ):
        await shown(*place)
        postgres_server.execute(statement, database)
        await until(lambda place=place: shown(*place), wanted)  # type: ignore[misc]
    for statement, where in (
        (f"INSERT INTO favorites SELECT {by_bob}, ({article})", (at, "article", "favorited")),
        (f"INSERT INTO follows VALUES ({by_bob}, {by_ann})", (profile, "profile", "following")),
    ):
        assert await shown(*where, to=bob) is False
        postgres_server.execute(statement, database)
        await until(lambda where=where: shown(*where, to=bob), True)  # type: ignore[misc]
