"""Profiles, and who follows whom."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer, viewer_of
from conduit.blocks import Reader
from conduit.documents import Json
from conduit.problems import not_found
from conduit.reading import answers, direct
from conduit.tables import follows, users
from conduit.validation import path_text

USER_ID = sa.select(users.c.id).where(users.c.username == bindparam("username"))
FOLLOW = insert(follows).on_conflict_do_nothing()
UNFOLLOW = sa.delete(follows).where(
    follows.c.follower_id == bindparam("follower"), follows.c.followee_id == bindparam("followee")
)


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.profile(path_text(request, "username", "profile"), viewer))


async def follow(request: Request) -> Json:
    viewer = known_viewer(request)
    username = path_text(request, "username", "profile")
    async with og.db.write(key=viewer) as tx:
        followee = await _user_id(tx, username)
        await tx.execute(FOLLOW, follower_id=viewer, followee_id=followee)
        og.cache.invalidate(changes.follows(viewer))
        return Json(await direct.profile_in(tx, username, viewer))


async def unfollow(request: Request) -> Json:
    viewer = known_viewer(request)
    username = path_text(request, "username", "profile")
    async with og.db.write(key=viewer) as tx:
        followee = await _user_id(tx, username)
        await tx.execute(UNFOLLOW, follower=viewer, followee=followee)
        og.cache.invalidate(changes.follows(viewer))
        return Json(await direct.profile_in(tx, username, viewer))


async def _user_id(tx: Reader, username: str) -> int:
    user = await tx.one(USER_ID, username=username)
    if user is None:
        raise not_found("profile")
    return int(user.id)
