"""A real Redis for the cache, and processes that share it over a database that the test plays."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from redis import Redis
from redis.exceptions import OutOfMemoryError

from outgrow import endpoints
from outgrow.engines.redis import cache as redis_cache
from outgrow.engines.redis import redis
from outgrow.engines.redis.client import Account, answers
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import Bookmark, Position, Writer
from outgrow.runtime.cache import Cache
from outgrow.runtime.cache.shared import Shared
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Announcer, Message, Scope
from outgrow.workload import Address
from tests.support.ports import free_port
from tests.support.redis import program

HOST = "127.0.0.1"
APPLICATION = "test"
TESTS = "tests"


class CacheServer:
    """As the fleet runs it: its settings, its users. Empty at every start. `stop` leaves nothing behind."""

    def __init__(self, memory: str = "64mb", *, application: str = APPLICATION) -> None:
        self._program, self._memory, self._application = program(), memory, application
        self.directory = Path(tempfile.mkdtemp(prefix="outgrow-test-cache-"))
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Without the password."""
        return f"redis://{self._application}@{HOST}:{self.port}"

    @property
    def client(self) -> Redis:
        """For what only a test does."""
        return Redis(HOST, self.port, username=TESTS, password=self.password, decode_responses=True)

    def answers(self) -> bool:
        """Whether it does."""
        return answers(Account(HOST, self.port, self._application, self.password))

    def empty(self) -> None:
        """As at its start, for those who are connected."""
        with self.client as client:
            client.flushall()

    def end_doubts(self) -> None:
        """As if the longest COMMIT had taken its time."""
        with self.client as client:
            for tag in client.hkeys("outgrow:test:cache:doubt"):
                client.hset("outgrow:test:cache:doubt", tag, "1 0")

    def fill(self) -> None:
        """With what Redis may not throw away, until there is room for nothing else."""
        with self.client as client:
            for size in (1 << 16, 1 << 8):
                with suppress(OutOfMemoryError):
                    for number in count():
                        client.set(f"outgrow:test:cache:fill:{size}:{number}", "x" * size)

    def start(self) -> None:
        """Start it; whoever connects waits by itself."""
        settings, access = self.directory / "redis.conf", self.directory / "access.conf"
        users = redis_cache.users(self._application, self.password, self.password)
        access.write_text(users + redis.user(TESTS, self.password, "~* &* +@all"))
        more = {**redis_cache.settings(1, "lru"), "maxmemory": self._memory}
        settings.write_text(redis.configuration(Address(HOST, self.port), self.directory, access, more))
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([self._program, settings], stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL: everything in it is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it and remove its folder."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class CacheServers:
    """Several of them, as one: what is done to it is done to each."""

    def __init__(self, *nodes: CacheServer) -> None:
        self.nodes = nodes

    @classmethod
    def made(cls, count: int) -> CacheServers:
        """So many, which are to be started."""
        return cls(*(CacheServer() for _ in range(count)))

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def signal(self, number: signal.Signals) -> None:
        for node in self.nodes:
            node.signal(number)

    def end_doubts(self) -> None:
        for node in self.nodes:
            node.end_doubts()

    def fill(self) -> None:
        for node in self.nodes:
            node.fill()

    def empty(self) -> None:
        for node in self.nodes:
            node.empty()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Data:
    """A database: a version for each tag, which a commit raises, and its position."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.end = 0
        self.owed: list[Message] = []

    @property
    def position(self) -> Position:
        return Position(1, self.end)

    def commit(self, tag: str) -> tuple[int, Position]:
        self.versions[tag] = self.versions.get(tag, 0) + 1
        self.end += 1
        return self.versions[tag], self.position

    async def written(self) -> Position:
        return self.position


class Process:
    """One process of the application: its cache, over the data and the shelf that all share."""

    def __init__(self, data: Data, server: CacheServer | CacheServers, *, entries_max: int = 1000) -> None:
        self.data = data
        self.server = server if isinstance(server, CacheServers) else CacheServers(server)
        self.events, self.writer = Events(), Writer()
        self.outcomes: dict[str, int] = {}
        self.events.cache_read.subscribe(self._count)
        nodes = self.server.nodes
        url, *more = [node.url for node in nodes]
        settings = endpoints.Cache(engine="redis", url=url, more_urls=tuple(more), entries_max=entries_max)
        self.known = Position(1, 0)
        self.cache = Cache(
            settings, self.events, position=lambda: self.known, writer=self.writer, for_sessions=False
        )
        self.shared = Shared(
            settings,
            [node.password for node in nodes],
            APPLICATION,
            tags=self.cache.tags,
            position=lambda: self.known,
            written=data.written,
            message=lambda tags: Message("tasks", ",".join(tags).encode()),
            events=self.events,
        )
        self.loads = 0

    async def open(self) -> None:
        await self.cache.use(self.shared)
        deadline = time.monotonic() + 20
        while self.shared.trouble:
            assert time.monotonic() < deadline, self.shared.trouble
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.cache.use(None)

    def look(self, tag: str) -> int:
        """What the database shows now, as a query of whoever asks."""
        self.events.query_finished("db", "SELECT", 0.0, None)
        return self.data.versions.get(tag, 0)

    async def read(self, tag: str, *, slow_s: float = 0.0) -> int:
        """The version of a tag, by the cache."""

        async def load() -> int:
            self.loads += 1
            seen = self.look(tag)
            await asyncio.sleep(slow_s)
            return seen

        return await self.cache.get(f"version:{tag}", load, tags=[tag])

    async def write(self, tag: str, *, crash: str = "", pause_s: float = 0.0) -> int:
        """A transaction that changes it, and to which version; `crash`: "before" or "after" its COMMIT."""
        block = Block()
        token = request.unit_of_work.set(block)
        self.cache.invalidate(tag)
        request.unit_of_work.reset(token)
        told, message = await block.announcer.announce(block.tags)
        if crash == "before":
            return 0
        await asyncio.sleep(pause_s)
        version, position = self.data.commit(tag)
        if message is not None:
            self.data.owed.append(message)
        if crash == "after":
            return version
        await asyncio.sleep(pause_s)
        self.known = max(self.known, position)
        scope = request.current.get()
        if scope is not None:
            scope.bookmark.wrote("main", position, block.tags, self.writer.id)
        if told:
            block.announcer.settle(told, position)
        block.take_effect(position)
        return version

    async def pay(self) -> None:
        """What a worker does with the messages that were stored with transactions."""
        while self.data.owed:
            message = self.data.owed[0]
            await self.shared.invalidate(message.body.decode().split(","), self.data.position)
            self.data.owed.pop(0)

    def _count(self, prefix: str, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1


class Block:
    """A write block, as the cache sees it."""

    announcer: Announcer

    def __init__(self) -> None:
        self.tags: list[str] = []
        self.effects: list[request.UnitOfWork] = []

    def stage(self, message: Message) -> None:
        raise AssertionError("the cache sends no messages of its own")

    def after_commit(self, effect: object, tags: Sequence[str] = (), *, certain: bool = False) -> None:
        self.effects.append(effect)  # type: ignore[arg-type]
        self.tags.extend(tags)

    def announced_by(self, announcer: Announcer) -> None:
        self.announcer = announcer

    def take_effect(self, position: Position) -> None:
        for effect in self.effects:
            effect(position)  # type: ignore[operator]


def session(bookmark: Bookmark | None = None) -> Scope:
    """The next request of a session: its bookmark has travelled."""
    bookmark = bookmark or Bookmark()
    bookmark.begin_session()
    return Scope(bookmark)
