"""Server-side sessions: `request.session`, kept in memory, in the database or in Redis."""

from outgrow.runtime.sessions.middleware import SessionMiddleware
from outgrow.runtime.sessions.moving import Moving
from outgrow.runtime.sessions.places import Places
from outgrow.runtime.sessions.session import Session
from outgrow.runtime.sessions.sessions import Sessions
from outgrow.runtime.sessions.store import Movable, Store
from outgrow.runtime.sessions.stores import open_store

__all__ = [
    "Movable",
    "Moving",
    "Places",
    "Session",
    "SessionMiddleware",
    "Sessions",
    "Store",
    "open_store",
]
