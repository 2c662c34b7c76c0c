"""Who has an answer already is not sent it again, and never keeps an old one."""

from __future__ import annotations

import pytest

from tests.example.world import Person, World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_who_has_the_answer_is_not_sent_it_again(world: World, ann: Person) -> None:
    if not world.og.cache.enabled:
        pytest.skip("whole answers are only kept in a cache")
    article = await ann.write()
    path, client = f"/api/articles/{article['slug']}", world.stranger.client
    first = await client.get(path)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    assert "Authorization" in first.headers["vary"]
    for held in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["access-control-allow-origin"] == "*"
        assert "content-type" not in again.headers
    await ann.put(path, {"article": {"description": "changed"}})
    changed = await client.get(path, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.json()["article"]["description"] == "changed"
    assert changed.headers["etag"] != tag
    missing = await client.get("/api/articles/never-was", headers={"If-None-Match": "*"})
    assert missing.status_code == 404
    assert "etag" not in missing.headers
    own = await ann.client.get(path, headers={"If-None-Match": changed.headers["etag"]})
    assert own.status_code == 200, "with a token it is another answer"
