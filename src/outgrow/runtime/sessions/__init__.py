"""Server-side sessions: `request.session`, kept in memory, in the database or in Redis."""

from outgrow.runtime.sessions.middleware import SessionMiddleware
from outgrow.runtime.sessions.session import Session
from outgrow.runtime.sessions.sessions import Sessions
from outgrow.runtime.sessions.store import Store
from outgrow.runtime.sessions.stores import open_store

__all__ = ["Session", "SessionMiddleware", "Sessions", "Store", "open_store"]
