"""Accounts: registration, login, and what a user changes about themselves."""

from typing import Any

import sqlalchemy as sa
from msgspec import UNSET
from sqlalchemy import bindparam
from starlette.requests import Request

from conduit import changes, og
from conduit.auth import check_password, hash_password, known_viewer, new_token, token_of, wrong_password
from conduit.documents import Credentials, Json, NewUser, User, UserChanges
from conduit.problems import Problem, invalid, taken, unauthorized
from conduit.tables import users
from conduit.validation import read_document
from outgrow import errors

ADD_USER = sa.insert(users).values(articles_count=0)
ACCOUNT = (users.c.email, users.c.username, users.c.bio, users.c.image)
USER_BY_ID = sa.select(*ACCOUNT, users.c.password_hash).where(users.c.id == bindparam("user_id"))
USER_BY_EMAIL = sa.select(users.c.id, *ACCOUNT, users.c.password_hash).where(
    users.c.email == bindparam("email")
)
USER_TO_CHANGE = USER_BY_ID.with_for_update()
CHANGED = ("email", "username", "bio", "image", "password_hash")
CHANGE_USER = (
    sa.update(users)
    .where(users.c.id == bindparam("user_id"))
    .values({name: bindparam(f"new_{name}") for name in CHANGED})
)


async def register(request: Request) -> Json:
    new = await read_document(request, "user", NewUser)
    user_id = og.ids.next()
    kept = await hash_password(new.password)
    try:
        async with og.db.write(key=user_id) as tx:
            await tx.execute(
                ADD_USER,
                id=user_id,
                username=new.username,
                email=new.email,
                password_hash=kept,
                bio=None,
                image=None,
            )
    except errors.UniqueViolation as error:
        raise _taken(error) from None
    return _account(User(new.email, new_token(user_id), new.username, None, None), 201)


async def login(request: Request) -> Json:
    user = await identified(request)
    return account(user, new_token(user.id))


async def identified(request: Request) -> Any:
    """The row of the user whose address and password the caller sends. Raises Problem 401 or 422."""
    given = await read_document(request, "user", Credentials)
    async with og.db.read() as tx:
        user = await tx.one(USER_BY_EMAIL, email=given.email)
    if user is None:
        raise await wrong_password(given.password)
    await check_password(user.password_hash, given.password)
    return user


async def current(request: Request) -> Json:
    user = await by_id(known_viewer(request))
    if user is None:
        raise unauthorized("is invalid")
    return account(user, token_of(request))


async def by_id(user_id: int) -> Any:
    """Their row, or None when the account is gone."""
    async with og.db.read(key=user_id) as tx:
        return await tx.one(USER_BY_ID, user_id=user_id)


async def change(request: Request) -> Json:
    viewer = known_viewer(request)
    wanted = await read_document(request, "user", UserChanges)
    new = await _new_values(wanted)
    try:
        async with og.db.write(key=viewer) as tx:
            user = await tx.one(USER_TO_CHANGE, user_id=viewer)
            if user is None:
                raise unauthorized("is invalid")
            kept: dict[str, Any] = {**dict(user), **new}
            await tx.execute(CHANGE_USER, user_id=viewer, **{f"new_{name}": kept[name] for name in kept})
            og.cache.invalidate(
                changes.profile(viewer), changes.username(user.username), changes.username(kept["username"])
            )
    except errors.UniqueViolation as error:
        raise _taken(error) from None
    return _account(User(kept["email"], token_of(request), kept["username"], kept["bio"], kept["image"]))


async def _new_values(wanted: UserChanges) -> dict[str, str | None]:
    """The columns that change, with their values. Raises Problem 422 when there is none."""
    new: dict[str, str | None] = {}
    if wanted.username is not UNSET:
        new["username"] = wanted.username
    if wanted.email is not UNSET:
        new["email"] = wanted.email
    if wanted.bio is not UNSET:
        new["bio"] = wanted.bio or None
    if wanted.image is not UNSET:
        new["image"] = wanted.image or None
    if wanted.password is not UNSET:
        new["password_hash"] = await hash_password(wanted.password)
    if not new:
        raise invalid("user", "names nothing to change")
    return new


def _taken(error: errors.UniqueViolation) -> Problem:
    return taken("email" if "email" in error.columns else "username")


def account(user: Any, token: str) -> Json:
    """The answer that shows users themselves, from their row."""
    return _account(User(user.email, token, user.username, user.bio, user.image))


def _account(user: User, status: int = 200) -> Json:
    return Json({"user": user}, status)
