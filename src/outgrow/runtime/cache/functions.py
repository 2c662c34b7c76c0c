"""Functions whose results are cached: @og.cache.cached(...).

@og.cache.cached(ttl="5m", tags=lambda slug: [f"article:{slug}"])
async def article(slug: str) -> Article: ...

await article("a")                 # from the cache, else by the function
article.invalidate("a")            # this result alone; inside a write block when it commits
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import msgspec

from outgrow.errors import Misuse

P = ParamSpec("P")
V = TypeVar("V")


class Keeper(Protocol):
    """The cache, as a function uses it."""

    @property
    def get(self) -> Callable[..., Awaitable[Any]]: ...
    def invalidate(self, *tags: str) -> None: ...


class Cached(Generic[P, V]):
    """A function and its results. Arguments are what JSON can say; equal ones of another type are others."""

    def __init__(
        self,
        cache: Keeper,
        function: Callable[P, Awaitable[V]],
        tags: Callable[P, Iterable[str]] | None,
        options: dict[str, Any],
    ) -> None:
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.function = function
        self.__doc__ = function.__doc__
        self._cache, self._tags, self._options = cache, tags, options
        self._signature = inspect.signature(function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """Its result. Raises what the function raises, and Misuse for arguments that JSON cannot say."""
        tags = () if self._tags is None else self._tags(*args, **kwargs)
        found: V = await self._cache.get(
            self.key(*args, **kwargs), lambda: self.function(*args, **kwargs), tags=tags, **self._options
        )
        return found

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Under which this result is kept. It is a tag, too."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            return f"{self.name}:{msgspec.json.encode(list(bound.arguments.values())).decode()}"
        except (TypeError, msgspec.MsgspecError) as error:
            raise Misuse(
                f"{self.name}: {error}", hint="give it what JSON can say: an id in the place of an object"
            ) from None

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget this result; inside a write block when, and only when, it commits."""
        self._cache.invalidate(self.key(*args, **kwargs))
