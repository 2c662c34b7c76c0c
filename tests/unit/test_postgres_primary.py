"""Looking for commits that wait in vain, at a primary that dies meanwhile."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from outgrow.engines.postgres.primary import Primary


class Connection:
    """Of a server that dies in the middle of its answer."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.terminated = False

    async def fetch(self, *_: Any, **__: Any) -> Any:
        raise self._error

    def is_closed(self) -> bool:
        return self.terminated

    def terminate(self) -> None:
        self.terminated = True


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_primary_that_dies_has_no_waits(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(error)

    async def connect(url: str, **_: Any) -> Connection:
        return connection

    monkeypatch.setattr(asyncpg, "connect", connect)
    assert await Primary("password", 5.0).look("postgresql://somewhere") == 0
    assert connection.terminated
