"""Profiles, and who follows whom. Doing it twice is doing it once, as with favourites."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer, viewer_of
from conduit.documents import Json
from conduit.problems import not_found
from conduit.reading import answers, direct, statements
from conduit.tables import follows, users
from conduit.validation import path_text

PROFILE_AND_ID = statements.profile(personal=True).add_columns(users.c.id)
FOLLOW = insert(follows).on_conflict_do_nothing()
UNFOLLOW = sa.delete(follows).where(
    follows.c.follower_id == bindparam("follower_id"), follows.c.followee_id == bindparam("followee_id")
)


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.profile(path_text(request, "username", "profile"), viewer))


async def follow(request: Request) -> Json:
    return await _make(request, FOLLOW, following=True)


async def unfollow(request: Request) -> Json:
    return await _make(request, UNFOLLOW, following=False)


async def _make(request: Request, statement: sa.Executable, *, following: bool) -> Json:
    viewer = known_viewer(request)
    username = path_text(request, "username", "profile")
    async with og.db.read(key=viewer, level="strong") as tx:
        row = await tx.one(PROFILE_AND_ID, username=username, viewer=viewer)
    if row is None:
        raise not_found("profile")
    *shown, followee_id = row
    profile = direct.as_profile(*shown)
    if profile.following is not following:
        profile.following = following
        async with og.db.write(key=viewer) as tx:
            await tx.execute(statement, follower_id=viewer, followee_id=followee_id)
            og.cache.invalidate(changes.follows(viewer))
    return Json({"profile": profile})
