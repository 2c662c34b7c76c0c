"""Outgrow: the application says what it needs; the topology says where that is today.

    from outgrow import Outgrow

    og = Outgrow()
    app = Starlette(routes=..., lifespan=og.lifespan)
    og.install(app)

Importing this package loads no driver and no control code; `Outgrow` is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outgrow import errors

if TYPE_CHECKING:
    from outgrow.runtime.application import Outgrow
    from outgrow.runtime.bookmark import Bookmark, Position
    from outgrow.runtime.cache.behind import WriteBehind
    from outgrow.runtime.cache.strategies import CacheAside, ReadThrough, RefreshAhead, WriteThrough
    from outgrow.runtime.database.unit import Read
    from outgrow.runtime.database.write import Write
    from outgrow.runtime.edge.etag import ETag
    from outgrow.runtime.scope import Scope
    from outgrow.runtime.sessions import Session

__version__ = "0.1.0"
__all__ = [
    "Bookmark",
    "CacheAside",
    "ETag",
    "Outgrow",
    "Position",
    "Read",
    "ReadThrough",
    "RefreshAhead",
    "Scope",
    "Session",
    "Write",
    "WriteBehind",
    "WriteThrough",
    "__version__",
    "errors",
]

_HOMES = {
    "Outgrow": "outgrow.runtime.application",
    "Bookmark": "outgrow.runtime.bookmark",
    "Position": "outgrow.runtime.bookmark",
    "CacheAside": "outgrow.runtime.cache.strategies",
    "ETag": "outgrow.runtime.edge.etag",
    "ReadThrough": "outgrow.runtime.cache.strategies",
    "RefreshAhead": "outgrow.runtime.cache.strategies",
    "WriteBehind": "outgrow.runtime.cache.behind",
    "WriteThrough": "outgrow.runtime.cache.strategies",
    "Read": "outgrow.runtime.database.unit",
    "Write": "outgrow.runtime.database.write",
    "Scope": "outgrow.runtime.scope",
    "Session": "outgrow.runtime.sessions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'outgrow' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
