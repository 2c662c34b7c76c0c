"""The Outgrow object: opens and closes the tiers and wires them to each other.

endpoints document ─► Database ─┬─► Outbox ─► Queue (worker)
                                ├─► Cache (positions), Buffer ─► Flushers
                                ├─► Sessions
                                └─► Health ─► Middleware ◄─ Signer, Telemetry, Sessions
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec

from outgrow import endpoints
from outgrow.endpoints import Endpoints, Secrets
from outgrow.errors import Misuse
from outgrow.runtime import gauges, telemetry
from outgrow.runtime import scope as request
from outgrow.runtime.asgi import App, Middleware
from outgrow.runtime.bookmark import Signer, Writer
from outgrow.runtime.cache import Cache
from outgrow.runtime.cache.behind import Flushers
from outgrow.runtime.cache.limit import places_of
from outgrow.runtime.control import Control
from outgrow.runtime.database import schema
from outgrow.runtime.database.buffer import Buffer
from outgrow.runtime.database.database import Database
from outgrow.runtime.database.outbox import Outbox
from outgrow.runtime.drain import PROCESS
from outgrow.runtime.events import Events
from outgrow.runtime.following import Following
from outgrow.runtime.health import Health, disk_space
from outgrow.runtime.ids import Ids
from outgrow.runtime.queue import Queue
from outgrow.runtime.scope import Scope
from outgrow.runtime.sessions import Movable, Places, Sessions, open_store
from outgrow.runtime.telemetry import tracecontext

if TYPE_CHECKING:
    from outgrow.runtime.cache.shared import Shared
    from outgrow.runtime.telemetry import Telemetry
    from outgrow.runtime.telemetry.prometheus import Metrics

LOOK_S = 1.0
"""So late it may be known at most that a replica is late."""

TELL_ATTEMPTS = 10_000
"""Of a message for the shared cache: while that is down for a day it is tried again and again."""


class Outgrow:
    """Everything an application needs, wherever its tiers are today.

    Reads the document named by OUTGROW_ENDPOINTS (the fleet sets it), or outgrow.toml in the working
    directory or above it, or what is given. Nothing is opened before start-up: use `lifespan`, or
    `async with og:` in a script. Raises Misuse or TopologyError when there is nothing to read.
    """

    def __init__(self, document: Endpoints | None = None, secrets: Secrets | None = None) -> None:
        discovered = document is None or secrets is None
        if document is None or secrets is None:
            document, secrets = endpoints.discover()
        self.endpoints = document
        self._secrets = secrets
        self._open_count = 0
        self.events = Events()
        self.ids = Ids()
        self.health = Health()
        self.signer = Signer({1: self.secret("bookmark")})
        self._writer = Writer()
        self.db = Database(
            document.database,
            passwords=secrets.passwords,
            events=self.events,
            ids=self.ids,
            headers=self._headers,
            writer=self._writer,
            consistency=document.consistency,
        )
        self.cache = Cache(
            document.cache,
            self.events,
            position=lambda: self.db.position,
            writer=self._writer,
            for_sessions=_caches_for_sessions(document),
            saw=self.db.saw,
            stands=self.db.stands,
            news_s=document.database.max_lag_s + LOOK_S,
            places=_loads_at_once(document),
        )
        self.queue = Queue(Outbox(self.db), document.queue, self.events, adopt=self._adopt)
        self.buffer, self.flushers = Buffer(self.db), Flushers()
        self._shared: Shared | None = None
        self._following: Following | None = None
        declare = self.queue.task(name="outgrow.cache", attempts=TELL_ATTEMPTS)
        self._invalidate = declare(self._tell_shared)
        self._reloading = asyncio.Lock()
        self._places = (
            Places(document.sessions, self._session_store) if document.sessions.engine != "off" else None
        )
        self.sessions = self._sessions(self._places) if self._places is not None else None
        self._telemetry: Telemetry | None = None
        self._control = (
            Control(
                Path(document.control),
                self.db.gate,
                epoch=lambda: self.endpoints.epoch,
                reload=self._reload,
                drain=self._drain,
                carry=self._carry_sessions,
                flush=self._flush_cache,
                handed_over=self.db.handed_over,
            )
            if discovered and document.control is not None
            else None
        )

    def secret(self, purpose: str) -> bytes:
        """32 bytes for this purpose, the same in every process of the application (HMAC of its secret)."""
        return hmac.digest(bytes.fromhex(self._secrets.application), b"outgrow:" + purpose.encode(), "sha256")

    def scope(self) -> Scope | None:
        """The context of the request or message that is running, or None outside of both."""
        return request.current.get()

    def outgoing_headers(self) -> dict[str, str]:
        """Headers for a call to another service of this application: its trace, and its bookmark."""
        return telemetry.outgoing_headers(self.signer)

    def install(self, app: Any) -> None:
        """Put the middleware around a Starlette or FastAPI application; for others see `wrap`.

        Raises Misuse when the application takes no middleware.
        """
        if not hasattr(app, "add_middleware"):
            raise Misuse(
                f"{type(app).__name__} has no add_middleware()", hint="serve `og.wrap(app)` in place of `app`"
            )
        app.add_middleware(Middleware, **self._middleware_options())

    def wrap(self, app: Callable[..., Awaitable[None]]) -> App:
        """The application with the middleware around it: for Litestar and plain ASGI.

        Any ASGI application will do: each framework has types of its own for the messages.
        """
        return Middleware(app, **self._middleware_options())

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """A lifespan handler: `Starlette(lifespan=og.lifespan)`. Opens, works on the queue, closes."""
        async with self:
            self.queue.start()
            self.flushers.start()
            yield

    async def __aenter__(self) -> Self:
        """Open the tiers, without a worker. Raises Unavailable when a server cannot be reached."""
        self._open_count += 1
        if self._open_count == 1:
            try:
                await self._open()
            except BaseException:
                self._open_count -= 1
                if self._control is not None:
                    await self._control.close()
                if self.sessions is not None:
                    await self.sessions.close()
                await self._follow(None)
                await self.cache.use(None)
                await self.db.close()
                raise
        return self

    async def _open(self) -> None:
        self._writer.renew()
        await self.db.open()
        await self._share_cache(self.endpoints.cache)
        await self._follow(self.endpoints)
        if self.sessions is not None:
            await self.sessions.open()
        self._add_checks()
        if self._control is not None:
            await self._control.open()
            # What was published since the document was read has not been told to this process.
            await self._reload()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_count -= 1
        if self._open_count:
            return
        self.health.stopping = True
        try:
            if self._control is not None:
                await self._control.close()
            await self.queue.close()
            await self.flushers.close()
            if self.sessions is not None:
                await self.sessions.close()
        finally:
            await self._follow(None)
            await self.cache.use(None)
            await self.db.close()
            self.health.stopping = False

    async def _reload(self) -> None:
        """Take over what the endpoints document says now, if it is newer. Raises OutgrowError."""
        async with self._reloading:
            document, secrets = endpoints.discover()
            if document.epoch > self.endpoints.epoch:
                await self._obey(document, secrets)

    async def _obey(self, document: Endpoints, secrets: Secrets) -> None:
        self._secrets = secrets
        if document.sessions != self.endpoints.sessions:
            await self._move_sessions(document.sessions)
        before = self.endpoints.database
        if document.database == msgspec.structs.replace(before, pool=document.database.pool):
            self.db.resize(document.database.pool)
        else:
            await self.db.move(document.database, secrets.passwords)
        self.cache.limit.resize(_loads_at_once(document))
        cache = self.endpoints.cache
        if (document.cache.engine, document.cache.urls) != (cache.engine, cache.urls):
            await self._share_cache(document.cache)
        if (document.cache, document.database) != (self.endpoints.cache, before):
            await self._follow(document)
        self.cache.serve_sessions(_caches_for_sessions(document))
        self.cache.among(document.cache)
        self.endpoints = document

    async def _move_sessions(self, settings: endpoints.Sessions) -> None:
        """To its end: what the fleet does next counts on no call being under way anywhere else."""
        if self.sessions is None or self._places is None:
            return  # the application has begun without, and its next process begins with them
        left = await self._places.become(settings)
        await self.sessions.use(self._places.store)
        for store in left:
            await store.close()

    async def _share_cache(self, settings: endpoints.Cache) -> None:
        self._shared = None
        if settings.engine == "redis":
            try:
                from outgrow.runtime.cache.shared import Shared
            except ModuleNotFoundError as error:
                raise Misuse("a shared cache needs a driver", hint="pip install 'outgrow[redis]'") from error
            self._shared = Shared(
                settings,
                endpoints.cache_passwords(settings, self._secrets),
                self.endpoints.application,
                tags=self.cache.tags,
                position=lambda: self.db.position,
                written=self.db.written,
                message=lambda tags: self.queue.message(self._invalidate, *tags),
                events=self.events,
            )
        await self.cache.use(self._shared)

    async def _follow(self, document: Endpoints | None) -> None:
        """Have the shared cache hear of what changes in the database, where that is asked for."""
        following, self._following = self._following, None
        if following is not None:
            await following.close()
        url = document.cache.changes_url if document is not None else None
        self.db.mark(url is not None and self._shared is not None)
        if document is None or url is None or self._shared is None:
            return
        self._following = Following(
            url,
            self._secrets.passwords.get("changes"),
            document.application,
            timeline=document.database.shards[0].timeline,
            database=self.db,
            shared=self._shared,
            declared=self.cache.declared,
            events=self.events,
        )
        self._following.begin()

    async def _tell_shared(self, *tags: str) -> None:
        """A transaction has changed these while the shared cache could not be told. Raises until it can."""
        if self._shared is not None:
            await self._shared.invalidate(tags, await self.db.written())

    async def _flush_cache(self, tags: Sequence[str]) -> None:
        """Forget what has these tags or keys, or everything; where processes share a cache, in all of them.

        What is loaded for it from now on shows at least what the primary has now, whoever has changed it.
        Raises Unavailable.
        """
        if self._shared is not None:
            await self._tell_shared(*(tags or self._shared.everything))
        elif tags:
            self.cache.invalidate(*tags)
        else:
            self.cache.clear()

    def _drain(self) -> None:
        """The fleet is about to end this process."""
        self.health.stopping = True
        PROCESS.begin()

    def _add_checks(self) -> None:
        self.health.add("database", self.db.check)
        self.health.add("cache", self.cache.check, critical=False)
        if self.sessions is not None:
            # A store that all servers share must not take all of them out: what needs no session works.
            self.health.add("sessions", self.sessions.check, critical=False)
        self.health.add("disk", disk_space(self._data_directory()))

    def _sessions(self, places: Places) -> Sessions:
        settings = self.endpoints.sessions
        return Sessions(settings, places.store, {1: self.secret("session")}, self.events)

    def _session_store(self, named: endpoints.SessionStore) -> Movable:
        return open_store(
            named,
            database=self.db,
            table=schema.session,
            passwords=self._secrets.passwords,
            application=self.endpoints.application,
        )

    async def _carry_sessions(self, seconds: float, clear: bool) -> tuple[int, bool]:
        """For so long, while sessions move: how many, and whether there may be more."""
        if self.sessions is None:
            return 0, False
        return await self.sessions.carry(time.monotonic() + seconds, clear=clear)

    def _data_directory(self) -> Path:
        """Where this process writes: the SQLite file's folder, else the working directory."""
        url = self.endpoints.database.shards[0].nodes[0].url
        return Path(url.removeprefix("sqlite:///")).parent if urlsplit(url).scheme == "sqlite" else Path.cwd()

    def _middleware_options(self) -> dict[str, Any]:
        if self._telemetry is None:
            self._telemetry = telemetry.attach(
                self.events, self.endpoints.telemetry, application=self.endpoints.application
            )
            if self._telemetry.metrics is not None:
                self._add_gauges(self._telemetry.metrics)
        return {
            "signer": self.signer,
            "events": self.events,
            "health": self.health,
            "telemetry": self.endpoints.telemetry,
            "exposition": self._telemetry.exposition,
            "recent": self._telemetry.recent,
            "hot_keys": self.cache.report,
            "sessions": self.sessions,
        }

    def _add_gauges(self, metrics: Metrics) -> None:
        gauges.of_database(metrics, self.db, lambda: self.endpoints.epoch)
        gauges.of_cache(metrics, self.cache)
        gauges.of_changes(metrics, lambda: self._following)
        metrics.buffers(self.flushers)

    def _headers(self) -> str:
        """What travels with a message: the trace and the session of whoever sends it."""
        return msgspec.json.encode(telemetry.outgoing_headers(self.signer)).decode()

    def _adopt(self, headers: dict[str, str]) -> Scope:
        """The scope in which a message is worked on: it sees at least what its sender had seen."""
        token = headers.get("Outgrow-Bookmark")
        bookmark = self.signer.decode(token) if token else None
        parent = tracecontext.parse(headers.get("traceparent", "").encode())
        if parent is None:
            trace_id, span_id = tracecontext.new_ids()
            return Scope(bookmark, trace_id=trace_id, span_id=span_id)
        return Scope(
            bookmark,
            trace_id=parent.trace_id,
            span_id=tracecontext.new_span_id(),
            parent_id=parent.span_id,
            sampled=parent.sampled and self.endpoints.telemetry.otlp_endpoint is not None,
        )


def _loads_at_once(document: Endpoints) -> int:
    return document.cache.loads_max or places_of(document.database.pool)


def _caches_for_sessions(document: Endpoints) -> bool:
    """Whether sessions are served from memory without more ado. Not where what is kept in this process can be
    older than what a session has seen elsewhere: with other processes or replicas; unless nothing of that
    kind is promised."""
    promised = document.consistency in ("session", "strong")
    several = document.cache.engine == "redis" or document.cache.several
    alone = not several and all(len(shard.nodes) == 1 for shard in document.database.shards)
    return alone or not promised
