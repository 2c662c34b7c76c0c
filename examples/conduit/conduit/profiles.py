"""Profiles, and who follows whom. Doing it twice is doing it once."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer, viewer_of
from conduit.documents import Json, Profile
from conduit.problems import not_found
from conduit.reading import answers, statements
from conduit.tables import follows, users
from conduit.validation import path_text

FOLLOWEE = sa.select(users.c.id, *statements.AUTHOR).where(users.c.username == bindparam("username"))
FOLLOW = insert(follows).on_conflict_do_nothing()
UNFOLLOW = sa.delete(follows).where(
    follows.c.follower_id == bindparam("follower_id"), follows.c.followee_id == bindparam("followee_id")
)


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.profile(path_text(request, "username", "profile"), viewer))


async def follow(request: Request) -> Json:
    return await _change(request, FOLLOW, following=True)


async def unfollow(request: Request) -> Json:
    return await _change(request, UNFOLLOW, following=False)


async def _change(request: Request, statement: sa.Executable, following: bool) -> Json:
    viewer = known_viewer(request)
    async with og.db.write(key=viewer) as tx:
        row = await tx.one(FOLLOWEE, username=path_text(request, "username", "profile"))
        if row is None:
            raise not_found("profile")
        followee, username, bio, image = row
        await tx.execute(statement, follower_id=viewer, followee_id=followee)
        og.cache.invalidate(changes.follows(viewer))
    return Json({"profile": Profile(username, bio, image, following)})
