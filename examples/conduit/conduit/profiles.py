"""Profiles, and who follows whom. Doing it twice is doing it once."""

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's, too
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import known_viewer, viewer_of
from conduit.documents import Json
from conduit.reading import answers
from conduit.tables import follows, users
from conduit.validation import path_text

VIEWER = bindparam("viewer", type_=sa.BigInteger)
FOLLOWEE = sa.select(users.c.id).where(users.c.username == bindparam("username"))
FOLLOW = (
    insert(follows)
    .from_select(["follower_id", "followee_id"], FOLLOWEE.with_only_columns(VIEWER, users.c.id))
    .on_conflict_do_nothing()
)
UNFOLLOW = sa.delete(follows).where(
    follows.c.follower_id == VIEWER, follows.c.followee_id == FOLLOWEE.scalar_subquery()
)


async def show(request: Request) -> Json:
    viewer = viewer_of(request)
    return Json(await answers.profile(path_text(request, "username", "profile"), viewer))


async def follow(request: Request) -> Json:
    return await _change(request, FOLLOW)


async def unfollow(request: Request) -> Json:
    return await _change(request, UNFOLLOW)


async def _change(request: Request, statement: sa.Executable) -> Json:
    viewer = known_viewer(request)
    username = path_text(request, "username", "profile")
    async with og.db.write(key=viewer) as tx:
        if await tx.execute(statement, viewer=viewer, username=username):
            og.cache.invalidate(changes.follows(viewer))
    return Json(await answers.profile(username, viewer))
