"""The session guarantees over every order of events that Hypothesis can think of.

A world of servers that write, replay, start anew, are promoted and diverge; a view of it that is always late;
and sessions that read and write through it. No session may see less than it knows, whoever serves it, and one
that knows what a failover has lost is told before it sees anything.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outgrow.endpoints import Database, Node, Shard
from outgrow.errors import LostWrite
from outgrow.runtime import scope as request
from outgrow.runtime.bookmark import SEVERAL, ZERO, Position, Signer
from outgrow.runtime.database.replication import ENDS_WITHIN_S, Replication
from outgrow.runtime.database.routing import Seen, Told, level_of
from outgrow.runtime.events import Events
from outgrow.runtime.scope import Scope

SIGNER = Signer({1: b"k" * 32})
NAMES = ("a", "b", "c")
SESSIONS = (1, 2)
NOTHING = Position(1, 0)


@dataclass
class Server:
    """One of the simulated servers, as Replication sees it: it is only asked how busy it is."""

    name: str
    standby: bool
    timeline: int = 1
    lsn: int = 10
    run: int = 2
    forked_at: int | None = None
    alive: bool = True
    used: int = 0
    position: Position = ZERO

    def told(self, ends: Mapping[int, int]) -> Told:
        return Told(self.standby, self.timeline, self.lsn, self.run, 1, self.forked_at, ends)

    def abandon(self) -> None:
        """Nothing is under way."""


@dataclass
class Session:
    """What it knows, by the world's own record, and the token that it carries."""

    number: int
    token: str | None = None
    knows: Position = NOTHING


class World(RuleBasedStateMachine):
    """Rules are what can happen; reads check what must hold."""

    @initialize(tells_history=st.booleans())
    def begin(self, tells_history: bool) -> None:
        self.tells_history = tells_history
        self.servers = {name: Server(name, standby=name != "a", run=2 + n) for n, name in enumerate(NAMES)}
        self.runs = 10
        self.forks: dict[int, int] = {}
        self.sessions = {number: Session(number) for number in SESSIONS}
        shards = (Shard("0", tuple(Node(name, f"postgresql://h/{name}") for name in NAMES)),)
        self.replication = Replication(
            Database("postgres", shards, max_lag_s=math.inf),
            self.servers,  # type: ignore[arg-type]
            Events(),
        )
        self.view = self.replication.view
        self.view._watches = {name: Watching(server) for name, server in self.servers.items()}  # type: ignore[misc]
        for name in NAMES:
            self.view.seen[name] = Seen(name)
            self.look(name)
        self.look("a")

    @property
    def primary(self) -> Server:
        return max((s for s in self.servers.values() if not s.standby), key=lambda s: s.timeline)

    def has(self, server: Server, point: Position) -> bool:
        """Whether everything up to this point can be seen there: its own history leads through it."""
        while point.timeline > 1 and point.offset <= self.forks[point.timeline]:
            point = Position(point.timeline - 1, point.offset)
        if point.timeline > server.timeline:
            return False
        left = [self.forks[line] for line in range(point.timeline + 1, server.timeline + 1)]
        return point.offset <= min([server.lsn, *left])

    def ends(self, server: Server) -> dict[int, int]:
        """Where the timelines before that of this server were left, if it may tell."""
        ends: dict[int, int] = {}
        for line in range(server.timeline, 1, -1) if self.tells_history else ():
            ends[line - 1] = min(self.forks[line], ends.get(line, self.forks[line]))
        return ends

    def follows(self, server: Server) -> bool:
        """Whether all that it has replayed is of the primary's history."""
        return self.has(self.primary, Position(server.timeline, server.lsn))

    # The world

    @rule(amount=st.integers(1, 5))
    def others_write(self, amount: int) -> None:
        if self.primary.alive:
            self.primary.lsn += amount

    @rule(name=st.sampled_from(NAMES), amount=st.integers(1, 8))
    def replay(self, name: str, amount: int) -> None:
        server, primary = self.servers[name], self.primary
        if not server.standby or not server.alive or not primary.alive:
            return
        if not self.follows(server):
            return  # it has diverged, and must be rewound
        server.lsn = min(primary.lsn, server.lsn + amount)
        follows_another, server.timeline = server.timeline != primary.timeline, primary.timeline
        if follows_another:
            # Nobody tells of it but a look. What a session reads there before, and what it is shown by an old
            # primary that lives on, are not known to be of two timelines: docs/replication.md says so.
            self.look(name)

    @rule(name=st.sampled_from(NAMES), back=st.integers(0, 6))
    def start_anew(self, name: str, back: int) -> None:
        """A crash and its recovery; a replica's begins further back, an old primary comes back as one."""
        server, primary = self.servers[name], self.primary
        self.runs += 1
        server.run, server.alive = self.runs, True
        if server is primary:
            return
        server.standby, server.forked_at = True, None
        while not self.follows(server):
            server.lsn -= 1
        server.lsn = max(1, server.lsn - back)

    @rule(name=st.sampled_from(NAMES), dies=st.booleans())
    def fail_over(self, name: str, dies: bool) -> None:
        """Somebody is promoted who may not be as far. The old primary dies, or does not know of it."""
        server, primary = self.servers[name], self.primary
        if not server.standby or not server.alive or primary.timeline >= 4 or not self.follows(server):
            return
        primary.alive = not dies
        server.standby, server.forked_at = False, server.lsn
        server.timeline = primary.timeline + 1
        self.forks[server.timeline] = server.lsn

    # What this process learns of it

    @rule(name=st.sampled_from(NAMES))
    def look(self, name: str) -> None:
        server = self.servers[name]
        if server.alive:
            self.view.note(name, server.told(self.ends(server)), monotonic())
        else:
            self.view.fail(name, "it is dead", lost=True)

    # Sessions

    @rule(
        number=st.sampled_from(SESSIONS),
        reads=st.integers(1, 3),
        settles=st.booleans(),
        forgets=st.booleans(),
    )
    def read(self, number: int, reads: int, settles: bool, forgets: bool) -> None:
        session = self.sessions[number]
        with self.scope(session) as scope:
            if forgets and scope.bookmark.seen:
                scope.bookmark.seen["0"] = SEVERAL  # tokens of two answers at once were merged
            for _ in range(reads):
                if not self.read_once(session):
                    return
            primary = self.view.standing.primary
            if settles and primary is not None and self.servers[primary.name] is self.primary:
                self.look(primary.name)
                asyncio.run(self.replication.settle(scope.bookmark))

    def read_once(self, session: Session) -> bool:
        level = level_of("session")
        try:
            choice = self.replication.choose(level, deadline=math.inf)
        except LostWrite:
            self.restart(session)
            return True
        if choice is None or choice.node is None:
            return False
        server = self.servers[choice.node.name]
        run = self.replication.saw(level, choice.node)
        if not server.alive or server.run != choice.node.run:  # so it is seen at its connection
            self.view.suspect(server.name)
            return False
        assert self.has(server, session.knows), f"{server} went back in time: {session}"
        session.knows = Position(server.timeline, server.lsn)
        scope = request.current.get()
        assert scope is not None
        if choice.node.role == "replica" and not server.standby:
            self.replication.promoted(
                server.name, server.timeline
            )  # it tells it at the end of each statement
        scope.bookmark.still_sees("0", run)
        return True

    @rule(number=st.sampled_from(SESSIONS))
    def write(self, number: int) -> None:
        session = self.sessions[number]
        with self.scope(session) as scope:
            try:
                if self.replication._demand(scope.bookmark, deadline=math.inf) is None:
                    return
            except LostWrite:
                self.restart(session)
                return
            known = self.view.standing.primary
            if known is None:
                return
            server = self.servers[known.name]
            if known.run != server.run or not server.alive or server.standby:
                self.view.suspect(known.name)
                return
            # Where nobody follows any more it writes as well: this process cannot know that yet.
            assert self.has(server, session.knows), "it was not told what is lost before it wrote"
            server.lsn += 1
            session.knows = Position(server.timeline, server.lsn)
            scope.bookmark.wrote("0", session.knows, (), 0)

    def restart(self, session: Session) -> None:
        """It was told, and goes on with what is there: on the timeline that this process knows."""
        lineage = self.view.standing.lineage
        assert lineage.timeline > 1, "nothing was lost yet"
        session.knows = Position(lineage.timeline, lineage.fork)

    @contextmanager
    def scope(self, session: Session) -> Iterator[Scope]:
        """A request: the token comes in and goes out again."""
        bookmark = SIGNER.decode(session.token) if session.token else None
        scope = Scope(bookmark)
        scope.bookmark.session = session.number
        token = request.current.set(scope)
        try:
            yield scope
        finally:
            request.current.reset(token)
            session.token = SIGNER.encode(scope.bookmark)

    @invariant()
    def the_view_believes_no_two_primaries(self) -> None:
        if hasattr(self, "view") and self.view.standing.primary is not None:
            assert self.view.standing.primary.timeline == self.view.standing.lineage.timeline


class Watching:
    """Looks when the world says so."""

    def __init__(self, node: Server) -> None:
        self.node = node

    def hurry(self) -> None:
        """Not by itself."""


@pytest.mark.parametrize("answers", ["as the primary", "still as a replica", "no more"])
def test_a_promotion_is_counted_once(answers: str) -> None:
    """Whatever this process knows of the new primary when a block on it ends, the timeline is its own."""
    world, level = World(), level_of("session")
    world.begin(tells_history=True)
    with world.scope(world.sessions[1]) as scope:
        chosen = world.replication.choose(level, deadline=math.inf)
        assert chosen is not None and chosen.node is not None and chosen.node.role == "replica"
        name = chosen.node.name
        world.replication.saw(level, chosen.node)
        world.fail_over(name=name, dies=True)
        server = world.servers[name]
        # Shortly before it accepts writes it tells of the new timeline, and that it is a replica.
        server.standby = answers == "still as a replica"
        world.look(name=name)
        if answers == "no more":
            world.view.suspect(name)
        server.standby = False
        world.replication.promoted(name, server.timeline)
        assert scope.bookmark.positions["0"].timeline == world.view.standing.lineage.timeline == 2


def test_what_led_to_a_new_timeline_is_waited_for() -> None:
    """Shortly before it accepts writes a server tells of its timeline, and its history cannot be read yet."""
    world, level = World(), level_of("session")
    world.begin(tells_history=False)
    for number in SESSIONS:
        world.write(number=number)
    server, wait_s = world.servers["b"], world.replication.wait_s
    server.lsn = world.primary.lsn
    world.fail_over(name="b", dies=True)
    server.standby, server.forked_at = True, None
    world.look(name="b")
    world.look(name="a")
    with world.scope(world.sessions[1]):
        assert world.replication.choose(level, deadline=monotonic() + wait_s) is None
    with world.scope(world.sessions[2]), pytest.raises(LostWrite):  # nobody has told it in time
        world.replication.choose(level, deadline=monotonic() + wait_s - ENDS_WITHIN_S)
    server.standby, world.tells_history = False, True
    world.look(name="b")
    with world.scope(world.sessions[1]):
        choice = world.replication.choose(level, deadline=monotonic() + wait_s)
        assert choice is not None and choice.node is not None and choice.node.name == "b"


World.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestWorld = pytest.mark.timeout(240)(World.TestCase)
