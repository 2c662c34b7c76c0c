"""What `async with og.db.read() as tx` and `og.db.write()` give, for functions that take a tx."""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Executable


class Reader(Protocol):
    """A read block or a write block."""

    def one(self, statement: Executable, /, **parameters: Any) -> Awaitable[Any]: ...
    def all(self, statement: Executable, /, **parameters: Any) -> Awaitable[list[Any]]: ...
    def value(self, statement: Executable, /, **parameters: Any) -> Awaitable[Any]: ...


class Writer(Reader, Protocol):
    """A write block."""

    async def execute(self, statement: Executable, /, **parameters: Any) -> int: ...
    async def many(self, statement: Executable, parameters: Sequence[Mapping[str, Any]], /) -> None: ...
    def savepoint(self) -> AbstractAsyncContextManager[None]: ...
