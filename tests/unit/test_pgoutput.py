"""From the bytes of PostgreSQL's log to rows, from rows to tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.runtime import following
from outgrow.runtime.bookmark import Position
from outgrow.runtime.cache import changes
from outgrow.runtime.cache.changes import Collector, Declared
from outgrow.runtime.cache.tags import EVERYTHING
from outgrow.runtime.database import marks
from outgrow.runtime.database.pgoutput import Begin, Change, Commit, Decoder, Message, Said, Truncate
from tests.support.postgres import PostgresServer

SLOT = "decoded"
CHANGES = f"""
SELECT data FROM pg_logical_slot_get_binary_changes('{SLOT}', NULL, NULL,
    'proto_version', '1', 'publication_names', 'decoded', 'messages', 'true')
"""
BIG = "x" * 100_000
"""Kept beside the row, compressed hardly at all where it is random."""


def decoded(server: PostgresServer, database: str, *statements: str) -> list[Message]:
    """What the server tells of these, one transaction after the other."""
    for statement in statements:
        server.execute(statement, database)
    decoder = Decoder(lambda table: not table.startswith("unwanted"))
    found = [decoder.decode(bytes(row[0])) for row in server.execute(CHANGES, database)]
    return [message for message in found if message is not None]


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> PostgresServer:
    return postgres_server


@pytest.fixture
def database(server: PostgresServer) -> Iterable[str]:
    name = server.create_database().rpartition("/")[2]
    server.execute("CREATE SCHEMA audit", name)
    server.execute(
        "CREATE TABLE kinds (id bigint PRIMARY KEY, flag boolean, small smallint, real real, j jsonb, "
        "t text, at timestamptz, big text)",
        name,
    )
    server.execute("ALTER TABLE kinds ALTER big SET STORAGE EXTERNAL", name)
    server.execute("CREATE TABLE audit.events (id int PRIMARY KEY, note text)", name)
    server.execute("CREATE TABLE unwanted (id int PRIMARY KEY)", name)
    server.execute("CREATE PUBLICATION decoded FOR ALL TABLES", name)
    server.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')", name)
    yield name
    server.execute(f"SELECT pg_drop_replication_slot('{SLOT}')", name)


def rows(messages: list[Message]) -> list[Message]:
    """Without what begins and ends a transaction."""
    return [each for each in messages if not isinstance(each, Begin | Commit)]


def test_a_row_of_every_kind(server: PostgresServer, database: str) -> None:
    found = decoded(
        server,
        database,
        "INSERT INTO kinds VALUES "
        """(-1, true, 7, 0.5, '{"a": [1]}', 'grün', '2026-01-31 12:00:00+00', NULL)""",
    )
    begin, change, commit = found
    assert isinstance(begin, Begin) and isinstance(commit, Commit)
    (told,) = server.execute("SELECT extract(epoch FROM now()), pg_current_wal_lsn() - '0/0'", database)
    assert 0 <= float(told[0]) - commit.at < 60 and 0 < commit.end <= told[1]
    assert isinstance(change, Change) and (change.table, change.old) == ("kinds", None)
    assert change.new is not None and change.new.pop("at").startswith("2026-01-31")  # type: ignore[attr-defined]
    assert change.new == {
        "id": -1,
        "flag": True,
        "small": 7,
        "real": 0.5,
        "j": {"a": [1]},
        "t": "grün",
        "big": None,
    }


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_the_row_as_it_was(server: PostgresServer, database: str, identity: str) -> None:
    server.execute(f"ALTER TABLE audit.events REPLICA IDENTITY {identity}", database)
    found = decoded(
        server,
        database,
        "INSERT INTO audit.events VALUES (1, 'a')",
        "UPDATE audit.events SET note = 'b'",
        "UPDATE audit.events SET id = 2",
        "DELETE FROM audit.events",
    )
    _, changed, moved, gone = rows(found)
    full = identity == "FULL"
    assert changed == Change("audit.events", {"id": 1, "note": "a"} if full else None, {"id": 1, "note": "b"})
    assert moved == Change(
        "audit.events", {"id": 1, "note": "b"} if full else {"id": 1}, {"id": 2, "note": "b"}
    )
    assert gone == Change("audit.events", {"id": 2, "note": "b"} if full else {"id": 2}, None)


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_large_value_that_did_not_change(server: PostgresServer, database: str, identity: str) -> None:
    server.execute(f"ALTER TABLE kinds REPLICA IDENTITY {identity}", database)
    found = decoded(
        server, database, f"INSERT INTO kinds (id, big) VALUES (1, '{BIG}')", "UPDATE kinds SET small = 1"
    )
    _, changed = rows(found)
    assert isinstance(changed, Change) and changed.new is not None and changed.new["small"] == 1
    assert changed.new.get("big") == (BIG if identity == "FULL" else None)


def test_what_else_is_told(server: PostgresServer, database: str) -> None:
    found = decoded(
        server,
        database,
        "TRUNCATE kinds, audit.events, unwanted",
        "INSERT INTO unwanted VALUES (1)",
        "TRUNCATE unwanted",
        "SELECT pg_logical_emit_message(true, 'outgrow', '[\"a\"]')",
        "ALTER TABLE audit.events ADD more int DEFAULT 5",
        "INSERT INTO audit.events VALUES (1, NULL)",
    )
    truncated, said, inserted = rows(found)
    assert isinstance(truncated, Truncate) and set(truncated.tables) == {"kinds", "audit.events"}
    assert said == Said("outgrow", b'["a"]')
    assert inserted == Change("audit.events", None, {"id": 1, "note": None, "more": 5})


def collector(**functions: Any) -> Collector:
    declared = Declared()
    for table, function in functions.items():
        declared.add(table, function, None)
    return Collector(declared)


def by_id(row: Mapping[str, Any]) -> Iterable[str]:
    yield f"note:{row['id']}"


def test_transactions_are_told_together_and_what_was_announced_is_not() -> None:
    made = collector(notes=by_id)
    made.begin(7)
    made.row("notes", {"id": 1}, {"id": 2})
    made.announced(["note:2"])
    made.reached(90)
    assert made.batch.end == 0, "it is not whole yet"
    made.commit(100, 5.0)
    made.begin(8)
    made.row("notes", None, {"id": 3})
    made.commit(110, 6.0)
    made.begin(9)
    made.announced(["note:4"])
    made.row("notes", None, {"id": 4})
    made.commit(120, 7.0)
    made.reached(130)
    batch = made.take()
    assert (batch.tags, batch.transactions) == ({"note:1", "note:3"}, {7, 8})
    assert (batch.committed, batch.end, batch.since) == (110, 130, 5.0)
    assert made.take() == changes.Batch()


def test_what_is_announced_does_not_hide_that_everything_is_forgotten() -> None:
    made = collector(notes=by_id)
    made.begin(7)
    made.announced([EVERYTHING, "note:1"])
    made.row("notes", None, {"no": "id"})
    made.row("notes", None, {"id": 1})
    made.commit(100, 5.0)
    assert made.take().tags == {EVERYTHING}


def test_one_text_is_no_list_of_tags(caplog: pytest.LogCaptureFixture) -> None:
    made = collector(notes=lambda row: f"note:{row['id']}")
    made.begin(7)
    made.row("notes", None, {"id": 1})
    made.commit(100, 5.0)
    assert made.take().tags == {EVERYTHING} and "is one text" in caplog.text


def test_an_update_that_leaves_the_columns_alone_is_none() -> None:
    declared = Declared()
    declared.add("notes", by_id, ["title"])
    old, same, other = (
        {"id": 1, "title": "a", "n": 1},
        {"id": 1, "title": "a", "n": 2},
        {"id": 2, "title": "b"},
    )
    assert declared.tags("notes", old, same) == set()
    assert declared.tags("notes", old, other) == {"note:1", "note:2"}
    assert declared.tags("notes", None, same) == declared.tags("notes", old, None) == {"note:1"}
    assert declared.tags("notes", {"id": 1}, same) == {"note:1"}, "nobody knows what it was"


@given(st.lists(st.text(), max_size=5))
def test_what_a_transaction_says_is_read_again(tags: list[str]) -> None:
    assert marks.read(marks.written(tags).encode()) == tags


def test_what_others_say_in_our_place_says_nothing() -> None:
    assert marks.read(b"\xff") == marks.read(b"{}") == []


@given(
    st.integers(min_value=3, max_value=1 << 40), st.sets(st.integers(min_value=0, max_value=50), max_size=5)
)
def test_which_transactions_a_snapshot_does_not_show(first: int, under_way: set[int]) -> None:
    """Also where the 32 bits of their numbers have begun anew."""
    running = {first + each for each in under_way}
    end = first + 60
    snapshot = f"{min(running, default=end)}:{end}:{','.join(map(str, sorted(running)))}"
    asked = {each % (1 << 32): each for each in range(first, first + 70)}
    hidden = {asked[each] for each in following.unseen(snapshot, list(asked))}
    assert hidden == running | set(range(end, first + 70))


@pytest.mark.parametrize(
    ("note", "continues"),
    [
        ("", False),
        ("system 1 100", True),
        ("system 1 99", False),
        ("other 1 100", False),
        ("system 2 100", False),
        ("system 2 200", False),
    ],
)
def test_where_a_reader_misses_nothing(note: str, continues: bool) -> None:
    assert following.goes_on(note, "system", Position(1, 100)) is continues


def test_a_place_is_noted_so_that_it_goes_on_from_there() -> None:
    place = Position(3, 1 << 40)
    assert following.goes_on(following.noted("7", place), "7", place)


@given(st.binary(max_size=60))
def test_bytes_of_a_message_that_is_unknown_say_nothing(data: bytes) -> None:
    assert Decoder(lambda table: True).decode(b"Y" + data) is None
