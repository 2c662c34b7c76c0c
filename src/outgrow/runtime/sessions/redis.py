"""Sessions in Redis or Valkey: shared by every server of the application, and quick.

A session is a hash that Redis itself removes when its time is over. What must happen as one (compare and
set) is a short script on the server. Needs `pip install 'outgrow[redis]'`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from outgrow.errors import SessionsUnavailable
from outgrow.runtime.sessions.store import AWAY, Record

CONNECTIONS_MAX = 32
ANSWER_WITHIN_S = 1.0
WITHIN_S = 2.0
"""For one call as a whole: waiting for a connection, making it, and one more attempt on a new one."""

FIELDS = ("version", "created", "expires", "data", "moved")

_WRITE = """
local function write(first)
    redis.call('HSET', KEYS[1], 'version', ARGV[first], 'created', ARGV[first + 1],
        'expires', ARGV[first + 2], 'data', ARGV[first + 3], 'moved', ARGV[first + 4])
    redis.call('PEXPIRE', KEYS[1], ARGV[first + 5])
end
"""
ADD = f"{_WRITE} write(1) return 1"
REPLACE = f"""{_WRITE}
local kept = redis.call('HMGET', KEYS[1], 'version', 'moved')
if kept[1] ~= ARGV[1] or kept[2] ~= '' then return 0 end
write(2)
return 1
"""
TOUCH = """
if redis.call('HGET', KEYS[1], 'moved') ~= '' then return 0 end
redis.call('HSET', KEYS[1], 'expires', ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
FREEZE = f"""
local kept = redis.call('HMGET', KEYS[1], 'version', 'moved')
if kept[2] ~= '' then return 0 end
return redis.call('HSET', KEYS[1], 'version', kept[1] + 1, 'moved', '{AWAY}')
"""
PUT = f"""{_WRITE}
local kept = redis.call('HGET', KEYS[1], 'version')
if kept and tonumber(kept) >= tonumber(ARGV[1]) then return 0 end
write(1)
return 1
"""
DISCARD = """
local kept = redis.call('HMGET', KEYS[1], 'version', 'moved')
if kept[1] ~= ARGV[1] or kept[2] == '' then return 0 end
return redis.call('DEL', KEYS[1])
"""
LISTED = 500
"""Keys that one look goes through."""


class RedisStore:
    """One server. Its URL holds no password."""

    def __init__(self, url: str, password: str | None, application: str) -> None:
        self._url = url
        self._password = password
        self._prefix = f"outgrow:{application}:session:"

    async def open(self) -> None:
        """Connections are made when they are needed, so a server that is down stops nobody from starting."""
        pool = BlockingConnectionPool.from_url(
            self._url,
            password=self._password,
            max_connections=CONNECTIONS_MAX,
            timeout=WITHIN_S,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
            # A connection that has lain in the pool since before a restart of the server is found dead
            # by its first use. Every call may be repeated: a script that had its effect has it once.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            protocol=2,
            driver_info=None,
        )
        self._redis = Redis.from_pool(pool)
        self._add = self._redis.register_script(ADD)
        self._replace = self._redis.register_script(REPLACE)
        self._touch = self._redis.register_script(TOUCH)
        self._freeze = self._redis.register_script(FREEZE)
        self._put = self._redis.register_script(PUT)
        self._discard = self._redis.register_script(DISCARD)

    async def close(self) -> None:
        await self._redis.aclose()

    async def load(self, key: str) -> Record | None:
        """One command, and so one moment."""
        async with _asking():
            fields: list[Any] = await self._redis.hmget(self._prefix + key, FIELDS)
        version, created, expires, data, moved = fields
        if version is None:
            return None
        return Record(int(version), int(created), int(expires), data, moved.decode())

    async def add(self, key: str, record: Record, kept_ms: int) -> None:
        async with _asking():
            await self._add(keys=[self._prefix + key], args=[*record, max(1, kept_ms)])

    async def replace(self, key: str, version: int, record: Record, kept_ms: int) -> bool:
        async with _asking():
            done = await self._replace(keys=[self._prefix + key], args=[version, *record, max(1, kept_ms)])
        return bool(done)

    async def touch(self, key: str, expires: int, kept_ms: int) -> None:
        async with _asking():
            await self._touch(keys=[self._prefix + key], args=[expires, max(1, kept_ms)])

    async def remove(self, key: str) -> None:
        async with _asking():
            await self._redis.delete(self._prefix + key)

    async def check(self) -> str:
        async with _asking():
            await self._redis.ping()
        return "in Redis"

    async def freeze(self, key: str) -> None:
        async with _asking():
            await self._freeze(keys=[self._prefix + key])

    async def put(self, key: str, record: Record, kept_ms: int) -> None:
        async with _asking():
            await self._put(keys=[self._prefix + key], args=[*record, max(1, kept_ms)])

    async def discard(self, key: str, version: int) -> None:
        async with _asking():
            await self._discard(keys=[self._prefix + key], args=[version])

    async def keys(self) -> AsyncIterator[str]:
        cursor: int | None = None
        while cursor != 0:
            async with _asking():
                answer: Any = await self._redis.scan(cursor or 0, match=f"{self._prefix}*", count=LISTED)
            cursor, found = answer
            for key in found:
                yield key.decode().removeprefix(self._prefix)


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    """Within its time. Raises SessionsUnavailable for whatever goes wrong."""
    try:
        async with asyncio.timeout(WITHIN_S):
            yield
    except TimeoutError as error:
        raise SessionsUnavailable(f"Redis did not answer within {WITHIN_S:g} s") from error
    except (RedisError, OSError) as error:
        raise SessionsUnavailable(f"Redis: {type(error).__name__}: {error}") from error
