"""The Outgrow object: opens and closes the tiers and wires them to each other."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from outgrow import endpoints
from outgrow.endpoints import Endpoints, Secrets
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Signer
from outgrow.runtime.database.database import Database
from outgrow.runtime.events import Events
from outgrow.runtime.ids import Ids
from outgrow.runtime.scope import Scope


class Outgrow:
    """Everything an application needs, wherever its tiers are today.

    Reads the document named by OUTGROW_ENDPOINTS (the fleet sets it), or outgrow.toml in the working
    directory or above it, or what is given. Nothing is opened before start-up: use `lifespan`, or
    `async with og:` in a script. Raises Misuse or TopologyError when there is nothing to read.
    """

    def __init__(self, document: Endpoints | None = None, secrets: Secrets | None = None) -> None:
        if document is None or secrets is None:
            document, secrets = endpoints.discover()
        self.endpoints = document
        self._secrets = secrets
        self.events = Events()
        self.ids = Ids()
        self.signer = Signer({1: self.secret("bookmark")})
        self.db = Database(
            document.database, passwords=secrets.passwords, events=self.events, ids=self.ids, headers=self._headers
        )

    def secret(self, purpose: str) -> bytes:
        """32 bytes for this purpose, the same in every process of the application (HMAC of its secret)."""
        return hmac.digest(bytes.fromhex(self._secrets.application), b"outgrow:" + purpose.encode(), "sha256")
