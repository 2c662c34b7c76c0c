"""Who asks (JSON Web Tokens) and whether they know their password (argon2id)."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from time import time

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from starlette.requests import Request

from conduit import og
from conduit.problems import Problem, unauthorized
from conduit.settings import PASSWORD_MEMORY_KIB, PASSWORD_PASSES

LIFETIME_S = 7 * 24 * 3600
ALGORITHM = "HS256"

_key = og.secret("jwt")
_hasher = PasswordHasher(time_cost=PASSWORD_PASSES, memory_cost=PASSWORD_MEMORY_KIB, parallelism=1)
# Hashing is meant to be slow: beside the event loop, and no more at once than memory should hold.
_threads = ThreadPoolExecutor(2, thread_name_prefix="argon2")


def viewer_of(request: Request) -> int | None:
    """The caller's user id; None without a token. Raises Problem 401 for one that is not good."""
    header = request.headers.get("authorization")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    if scheme not in ("Token", "Bearer"):
        raise unauthorized("is invalid")
    try:
        user_id, expires = _verified(token)
    except (jwt.InvalidTokenError, ValueError):
        raise unauthorized("is invalid") from None
    if expires <= time():
        raise unauthorized("has expired")
    return user_id


def known_viewer(request: Request) -> int:
    """The caller's user id. Raises Problem 401 without a token, too."""
    viewer = viewer_of(request)
    if viewer is None:
        raise unauthorized("is missing")
    return viewer


def token_of(request: Request) -> str:
    """The token that the caller has sent."""
    return request.headers["authorization"].partition(" ")[2]


def new_token(user_id: int) -> str:
    """A token that proves for a week that its bearer is this user."""
    return jwt.encode({"sub": str(user_id), "exp": int(time()) + LIFETIME_S}, _key, ALGORITHM)


@lru_cache(8192)
def _verified(token: str) -> tuple[int, int]:
    """User id and end of a token that this application has signed. Whether it has ended is asked anew
    at each call, so remembering what is genuine forgets nothing."""
    claims = jwt.decode(token, _key, [ALGORITHM], {"require": ["sub", "exp"], "verify_exp": False})
    return int(claims["sub"]), int(claims["exp"])


async def hash_password(password: str) -> str:
    """What to keep of a password."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def check_password(kept: str, password: str) -> None:
    """Raises Problem 401 when it is not the one."""
    try:
        await asyncio.get_running_loop().run_in_executor(_threads, _hasher.verify, kept, password)
    except (VerificationError, InvalidHashError):
        raise _wrong() from None


async def wrong_password(password: str) -> Problem:
    """The same Problem for an account that does not exist, after the same time: nobody learns which."""
    with suppress(Problem):
        await check_password(_nobody(), password)
    return _wrong()


def _wrong() -> Problem:
    return unauthorized("invalid", "credentials")


@cache
def _nobody() -> str:
    """The hash of a password that nobody has."""
    return _hasher.hash(og.secret("nobody").hex())
