"""Sessions: one suite for every store."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgrow import endpoints
from outgrow.errors import Misuse, SessionConflict, SessionTooLarge
from outgrow.runtime.database.migrate import migrate
from outgrow.runtime.events import Events
from outgrow.runtime.sessions import Session, Sessions, Store
from outgrow.runtime.sessions import sessions as module
from outgrow.runtime.sessions.store import Record
from outgrow.runtime.sessions.ticket import Tickets
from tests.support.postgres import PostgresServer
from tests.support.redis import RedisServer
from tests.support.sessions import KEY, Clock, Visitor, stores

HOUR = 3600.0
IDLE_S, LIFETIME_S, SIZE_MAX = HOUR, 24 * HOUR, 2000


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One for the module."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open store of each kind."""
    kind, url, password = request.param, "", None
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url, password = server.url, server.password
    elif kind != "memory":
        url = f"sqlite:///{tmp_path}/test.db"
        if kind == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            url = postgres.create_database()
        await migrate(url, None)
        kind = "database"
    async with stores(kind, url, password) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sessions_on(store: Store, clock: Clock, key: bytes = KEY, events: Events | None = None) -> Sessions:
    made = endpoints.Sessions(
        engine="memory", idle_timeout_s=IDLE_S, lifetime_s=LIFETIME_S, size_bytes_max=SIZE_MAX
    )
    return Sessions(made, store, {1: key}, events or Events(), now=clock)


@pytest.fixture
def sessions(store: Store, clock: Clock) -> Sessions:
    return sessions_on(store, clock)


# --- The store's contract ----------------------------------------------------------------------------


def record(version: int = 1, data: bytes = b'{"a":1}', moved: str = "") -> Record:
    return Record(version, 1_800_000_000_000, 1_800_000_060_000, data, moved)


def new_key() -> str:
    return hashlib.sha256(random.randbytes(32)).hexdigest()


async def test_a_record_comes_back_as_it_went(store: Store) -> None:
    key = new_key()
    assert await store.load(key) is None
    kept = record(data='{"käse":"🧀\\u0000"}'.encode())
    await store.add(key, kept, 60_000)
    assert await store.load(key) == kept
    await store.remove(key)
    assert await store.load(key) is None
    await store.remove(key)
    assert await store.check()


async def test_only_the_version_that_was_seen_is_replaced(store: Store) -> None:
    key = new_key()
    assert not await store.replace(key, 1, record(2), 60_000), "there is none"
    assert await store.load(key) is None
    await store.add(key, record(), 60_000)
    assert await store.replace(key, 1, record(2, b'{"a":2}'), 60_000)
    assert not await store.replace(key, 1, record(2, b'{"a":3}'), 60_000)
    assert await store.load(key) == record(2, b'{"a":2}')
    assert await store.replace(key, 2, record(3, b"{}", moved=new_key()), 60_000)
    assert not await store.replace(key, 3, record(4), 60_000), "what has moved is never used again"


async def test_of_many_who_replace_one_version_one_wins(store: Store) -> None:
    key = new_key()
    await store.add(key, record(), 60_000)
    won = await asyncio.gather(
        *(store.replace(key, 1, record(2, b"%d" % number), 60_000) for number in range(20))
    )
    assert won.count(True) == 1
    kept = await store.load(key)
    assert kept is not None and kept.data == b"%d" % won.index(True)


async def test_touching_moves_the_end_and_nothing_else(store: Store) -> None:
    key, gone = new_key(), new_key()
    await store.add(key, record(), 60_000)
    await store.touch(key, 1_800_000_090_000, 90_000)
    assert await store.load(key) == record()._replace(expires=1_800_000_090_000)
    await store.touch(gone, 1_800_000_090_000, 90_000)
    assert await store.load(gone) is None, "a touch brings nothing back"
    note = record(2, b"{}", moved=gone)
    assert await store.replace(key, 1, note, 60_000)
    await store.touch(key, 1_800_000_090_000, 90_000)
    assert await store.load(key) == note


async def test_a_call_that_is_cancelled_harms_no_other(store: Store) -> None:
    """Above all no answer may reach somebody else: a connection with half an answer is thrown away."""
    keys = [new_key() for _ in range(20)]
    for number, key in enumerate(keys):
        await store.add(key, record(data=b"%d" % number), 60_000)

    async def look(number: int) -> None:
        kept = await store.load(keys[number])
        assert kept is not None and kept.data == b"%d" % number

    for _ in range(20):
        tasks = [asyncio.ensure_future(look(random.randrange(20))) for _ in range(20)]
        await asyncio.sleep(random.random() * 0.004)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in results if each and not isinstance(each, asyncio.CancelledError)] == []


# --- A life ------------------------------------------------------------------------------------------


async def test_a_session_from_the_first_visit_to_the_last(sessions: Sessions, store: Store) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        assert dict(session) == {} and session.get("user") is None
    assert visitor.cookie == "", "who only looks gets no cookie"
    async with visitor.request() as session:
        session["user"] = 7
        session["cart"] = ["apple"]
    assert len(visitor.cookie) == 88
    first = visitor.cookie
    async with visitor.request() as session:
        session["cart"].append("pear")  # inside a value, without assigning it
    assert visitor.cookie == first
    assert await visitor.content() == {"user": 7, "cart": ["apple", "pear"]}
    async with visitor.request() as session:
        del session["user"]
    assert await visitor.content() == {"cart": ["apple", "pear"]}
    async with visitor.request() as session:
        session.destroy()
        assert dict(session) == {}
    assert visitor.cookie == ""
    assert await Visitor(sessions, first).content() == {}


async def test_a_stored_session_gives_nobody_a_cookie(sessions: Sessions, store: Store) -> None:
    """Neither the ticket nor the id in it is in the store: only a hash."""
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    key = Tickets({1: KEY}).key_of(visitor.cookie.encode())
    assert key is not None and key not in visitor.cookie
    assert await store.load(key) is not None
    for guess in (key, key + key[:24]):
        assert await Visitor(sessions, guess).content() == {}


async def test_a_ticket_that_we_have_not_signed_is_nobodys(sessions: Sessions, store: Store) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    good = visitor.cookie
    for at in (0, 2, 20, 50, 86, 87):
        for sign in "A-_9=":
            forged = good[:at] + sign + good[at + 1 :]
            if forged != good:
                assert await Visitor(sessions, forged).content() == {}
    for forged in ("x", good[:-1], good + "A", good + good, "ä" * 44):
        assert await Visitor(sessions, forged).content() == {}
    stranger = Visitor(sessions_on(store, Clock(), key=b"another key of somebody else's!!"), good)
    assert await stranger.content() == {}


async def test_no_id_is_taken_from_a_client(sessions: Sessions, store: Store) -> None:
    """Fixation: an id that the server has never given, or gave and has forgotten, is not adopted."""
    never_kept, _ = Tickets({1: KEY}).new()
    visitor = Visitor(sessions, never_kept)
    async with visitor.request() as session:
        session["user"] = 7
    assert visitor.cookie not in ("", never_kept)
    assert await Visitor(sessions, never_kept).content() == {}


async def test_at_login_the_old_id_is_worth_nothing(sessions: Sessions) -> None:
    """Fixation: the attacker got a session of their own, and had the victim use it."""
    attacker = Visitor(sessions)
    async with attacker.request() as session:
        session["cart"] = ["bait"]
    victim = Visitor(sessions, attacker.cookie)
    async with victim.request() as session:
        session["user"] = 7
        session.rotate()
    assert victim.cookie != attacker.cookie
    assert await victim.content() == {"cart": ["bait"], "user": 7}
    assert await attacker.content() == {}
    with pytest.raises(SessionConflict):
        async with attacker.request() as session:
            session["user"] = 8
    assert await victim.content() == {"cart": ["bait"], "user": 7}
    async with attacker.request() as session:  # to log in oneself is always possible
        session["user"] = 9
        session.rotate()
    assert await attacker.content() == {"user": 9}
    assert await victim.content() == {"cart": ["bait"], "user": 7}


async def test_rotating_nothing_makes_nothing(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session.rotate()
    assert visitor.cookie == ""
    async with visitor.request() as session:
        session.destroy()
    assert visitor.cookie == ""


async def test_what_is_assigned_after_the_end_begins_another(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
        session["secret"] = "x"
    first = visitor.cookie
    async with visitor.request() as session:
        session.destroy()
        session["notice"] = "goodbye"
    assert await visitor.content() == {"notice": "goodbye"}
    assert visitor.cookie != first and await Visitor(sessions, first).content() == {}


# --- Time --------------------------------------------------------------------------------------------


async def test_it_ends_when_nobody_uses_it(sessions: Sessions, clock: Clock) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    for _ in range(5):
        clock.pass_s(0.9 * IDLE_S)
        async with visitor.request() as session:
            assert session["user"] == 7  # looking is a use
    clock.pass_s(IDLE_S)
    assert await visitor.content() == {}


async def test_it_ends_however_much_it_is_used(sessions: Sessions, clock: Clock) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    passed = 0.0
    while passed + 0.5 * IDLE_S < LIFETIME_S:
        clock.pass_s(0.5 * IDLE_S)
        passed += 0.5 * IDLE_S
        async with visitor.request() as session:
            session["last"] = passed
            session.rotate()  # a new id is no new life
    assert await visitor.content() != {}
    clock.pass_s(0.5 * IDLE_S)
    assert await visitor.content() == {}


async def test_reading_often_is_not_writing_often(store: Store, clock: Clock) -> None:
    sessions = sessions_on(store, clock)
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    key = Tickets({1: KEY}).key_of(visitor.cookie.encode())
    assert key is not None
    before = await store.load(key)
    clock.pass_s(0.05 * IDLE_S)
    await visitor.end(await visitor.begin())
    assert await store.load(key) == before
    clock.pass_s(0.1 * IDLE_S)
    await visitor.end(await visitor.begin())
    after = await store.load(key)
    assert before is not None and after is not None and after.expires > before.expires


async def test_the_cookie_lives_as_long_as_the_session_may(sessions: Sessions, clock: Clock) -> None:
    visitor = Visitor(sessions)
    visit = await visitor.begin()
    visit.session["user"] = 7
    ticket = await visitor.end(visit)
    assert ticket is not None and ticket.max_age_s == LIFETIME_S
    clock.pass_s(0.5 * IDLE_S)
    visit = await visitor.begin()
    visit.session.rotate()
    ticket = await visitor.end(visit)
    assert ticket is not None and ticket.max_age_s == LIFETIME_S - 0.5 * IDLE_S


# --- Size and form -----------------------------------------------------------------------------------


async def test_a_session_that_is_too_large_says_so_where_it_becomes_so(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
        session["list"] = []
    visit = await visitor.begin()
    with pytest.raises(SessionTooLarge, match=r"larger than 2000; 'big'"):
        visit.session["big"] = "x" * SIZE_MAX
    visit = await visitor.begin()
    visit.session["list"].append("x" * SIZE_MAX)
    with pytest.raises(SessionTooLarge, match="'list'"):
        await sessions.save(visit)
    assert await visitor.content() == {"user": 7, "list": []}, "what was there is there"


async def test_two_halves_that_are_too_large_together(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    first, second = await visitor.begin(), await visitor.begin()
    first.session["a"] = "x" * (SIZE_MAX * 2 // 3)
    second.session["b"] = "x" * (SIZE_MAX * 2 // 3)
    await visitor.end(first)
    with pytest.raises(SessionTooLarge):
        await visitor.end(second)
    assert set(await visitor.content()) == {"user", "a"}


@pytest.mark.parametrize(
    "value",
    [{1, 2}, (1, 2), object(), {1: "a"}, float("nan"), b"x", "\ud800", [{"a": (1,)}]],
    ids=lambda value: type(value).__name__,
)
async def test_what_json_would_change_is_refused(value: Any) -> None:
    session = Session(size_max=SIZE_MAX)
    with pytest.raises(Misuse, match=r"session\['key'\]"):
        session["key"] = value
    assert "key" not in session and session.changes() == {}
    bad: Any = 3
    for key in (bad, "\ud800"):
        with pytest.raises(Misuse):
            session[key] = 1


async def test_after_the_answer_has_begun_it_cannot_be_changed() -> None:
    session = Session({"list": b"[]"}, size_max=SIZE_MAX)
    session.freeze()
    assert session["list"] == []
    for change in (
        lambda: session.update(a=1),
        lambda: session.pop("list"),
        session.rotate,
        session.destroy,
        session.clear,
    ):
        with pytest.raises(Misuse, match="after the answer"):
            change()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.dictionaries(TEXT, JSON | st.just(...), max_size=3), max_size=6))
def test_it_is_a_dictionary(steps: list[dict[str, Any]]) -> None:
    """Whatever is assigned and deleted, the next request finds what a dictionary would hold."""

    async def live() -> None:
        async with stores("memory", "") as store:
            made = endpoints.Sessions(engine="memory", size_bytes_max=1_000_000)
            visitor = Visitor(Sessions(made, store, {1: KEY}, Events(), now=Clock()))
            model: dict[str, Any] = {}
            for step in steps:
                async with visitor.request() as session:
                    assert dict(session) == model and len(session) == len(model)
                    for key, value in step.items():
                        if value is not ...:
                            session[key] = model[key] = value
                        elif key in model:
                            del session[key], model[key]
            assert await visitor.content() == model

    asyncio.run(live())


# --- At once -----------------------------------------------------------------------------------------


async def test_of_those_who_change_it_at_once_nobody_loses_a_thing(store: Store, clock: Clock) -> None:
    events = Events()
    attempts: list[int] = []
    events.session_saved.subscribe(lambda outcome, seconds, tries: attempts.append(tries))
    sessions = sessions_on(store, clock, events=events)
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["begun"] = True

    async def one(number: int) -> None:
        visit = await visitor.begin()
        visit.session[f"key{number}"] = number
        visit.session["last"] = number
        await asyncio.sleep(random.random() * 0.01)
        assert await sessions.save(visit) is None

    await asyncio.gather(*map(one, range(24)))
    found = await visitor.content()
    assert found.pop("last") in range(24)
    assert found == {"begun": True, **{f"key{number}": number for number in range(24)}}
    assert max(attempts) > 1, "they did meet"


async def test_deleting_and_assigning_at_once(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session.update({f"key{number}": number for number in range(10)})

    async def delete(number: int) -> None:
        async with visitor.request() as session:
            await asyncio.sleep(random.random() * 0.005)
            del session[f"key{number}"]

    async def add(number: int) -> None:
        async with visitor.request() as session:
            await asyncio.sleep(random.random() * 0.005)
            session[f"new{number}"] = number

    await asyncio.gather(*map(delete, range(5)), *map(add, range(5)))
    expected = {f"key{number}": number for number in range(5, 10)}
    assert await visitor.content() == {**expected, **{f"new{number}": number for number in range(5)}}


async def test_too_many_at_once_are_told_and_nothing_is_half_kept(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["begun"] = True
    visits = [await visitor.begin() for _ in range(8)]
    for number, visit in enumerate(visits):
        visit.session[f"key{number}"] = number
    results = await asyncio.gather(*map(sessions.save, visits), return_exceptions=True)
    kept = {f"key{number}": number for number, result in enumerate(results) if result is None}
    assert kept and len(kept) < 8
    assert all(result is None or isinstance(result, SessionConflict) for result in results)
    assert SessionConflict.retryable
    assert await visitor.content() == {"begun": True, **kept}


async def test_a_change_under_way_follows_a_new_id(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["cart"] = []
    slow = await visitor.begin()
    slow.session["seen"] = "page"
    async with visitor.request() as session:
        session["user"] = 7
        session.rotate()
    assert await sessions.save(slow) is None, "it gets no cookie: the new one is on its way"
    assert await visitor.content() == {"cart": [], "user": 7, "seen": "page"}


async def test_a_change_under_way_does_not_undo_the_end(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    first = visitor.cookie
    slow, rotating = await visitor.begin(), await visitor.begin()
    slow.session["seen"] = "page"
    rotating.session["late"] = True
    rotating.session.rotate()
    async with visitor.request() as session:
        session.destroy()
    assert await sessions.save(slow) is None
    assert await Visitor(sessions, first).content() == {}
    ticket = await sessions.save(rotating)
    assert ticket is not None
    assert await Visitor(sessions, ticket.text).content() == {"late": True}, "nothing of the old one"


async def test_an_end_under_way_reaches_a_session_with_a_new_id(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["user"] = 7
    leaving = await visitor.begin()
    leaving.session.destroy()
    async with visitor.request() as session:
        session.rotate()
    assert await visitor.content() == {"user": 7}
    await sessions.save(leaving)
    assert await visitor.content() == {}


async def test_two_logins_at_once_share_no_id(sessions: Sessions) -> None:
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["cart"] = ["apple"]
    visits = [await visitor.begin() for _ in range(6)]
    for number, visit in enumerate(visits):
        visit.session["user"] = number
        visit.session.rotate()
    tickets = await asyncio.gather(*map(sessions.save, visits))
    texts = {ticket.text for ticket in tickets if ticket is not None}
    assert len(texts) == 6
    for number, ticket in enumerate(tickets):
        assert ticket is not None
        assert await Visitor(sessions, ticket.text).content() == {"cart": ["apple"], "user": number}
    assert await visitor.content() == {}


async def test_a_life_of_everything_at_once(sessions: Sessions) -> None:
    """Changes, rotations and reads by one browser, at random: nothing of an acknowledged change is lost."""
    visitor = Visitor(sessions)
    async with visitor.request() as session:
        session["begun"] = True
    kept: dict[str, object] = {"begun": True}
    rotating = asyncio.Lock()

    async def act(number: int) -> None:
        await asyncio.sleep(random.random() * 0.05)
        if number % 6 == 0:
            async with rotating, visitor.request() as session:
                session["rotated"] = number
                session.rotate()
            return
        visit = await visitor.begin()
        visit.session[f"key{number}"] = number
        await asyncio.sleep(random.random() * 0.02)
        try:
            ticket = await sessions.save(visit)
        except SessionConflict:
            return  # it came with a ticket that had just been replaced
        assert ticket is None
        kept[f"key{number}"] = number

    await asyncio.gather(*map(act, range(40)))
    found = await visitor.content()
    assert found.pop("rotated", 0) in range(0, 40, 6)
    assert found == kept and len(kept) > 10
