"""Core statements become SQL and arguments as SQLAlchemy itself would make them."""

import datetime
from functools import partial

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from outgrow.errors import StatementError
from outgrow.runtime.database import statement as module
from outgrow.runtime.database.routing import merge
from outgrow.runtime.database.statement import Compiler
from outgrow.runtime.events import Events

things = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text),
    sa.Column("at", sa.DateTime),
    sa.Column("kind", sa.Text, default="plain"),
    sa.Column("made", sa.Integer, default=lambda: 42),
)
BY_NAME = sa.select(things).where(things.c.name == sa.bindparam("name"))
ADD = sa.insert(things)
SQLITE, POSTGRES = SQLiteDialect_pysqlite(), PGDialect_asyncpg()


def compiler_for(dialect: sa.Dialect) -> Compiler:
    return Compiler(dialect, partial(Events().query_finished.bound, "db"))


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES], ids=["sqlite", "postgres"])
def test_a_statement_is_compiled_once(dialect: sa.Dialect) -> None:
    compiler = compiler_for(dialect)
    first = compiler.compile(BY_NAME, {"name": "x"})
    assert compiler.compile(BY_NAME, {"name": "y"}) is first
    assert list(first.arguments({"name": "x"})) == ["x"]
    assert first.label == "SELECT things"


def test_placeholders_follow_the_dialect() -> None:
    assert "?" in compiler_for(SQLITE).compile(BY_NAME, {"name": "x"}).sql
    assert "$1" in compiler_for(POSTGRES).compile(BY_NAME, {"name": "x"}).sql


def test_an_insert_is_compiled_for_the_columns_given() -> None:
    compiler = compiler_for(SQLITE)
    narrow = compiler.compile(ADD, {"id": 1})
    wide = compiler.compile(ADD, {"id": 1, "name": "x"})
    assert narrow is not wide
    assert "name" not in narrow.sql and "name" in wide.sql


def test_python_defaults_are_filled_in() -> None:
    compiled = compiler_for(SQLITE).compile(ADD, {"id": 1, "name": "x"})
    assert list(compiled.arguments({"id": 1, "name": "x"})) == [1, "x", "plain", 42]


def test_bind_processors_apply() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    compiled = compiler_for(SQLITE).compile(ADD, {"id": 1, "at": moment, "kind": "a", "made": 1})
    assert "2026-01-02 03:04:05.000000" in compiled.arguments({"id": 1, "at": moment, "kind": "a", "made": 1})


def test_in_takes_a_list_of_any_length() -> None:
    query = sa.select(things.c.id).where(things.c.id.in_(sa.bindparam("ids", expanding=True)))
    compiled = compiler_for(SQLITE).compile(query, {"ids": [1]})
    assert compiled.expanding
    sql, arguments = compiled.expand({"ids": [1, 2, 3]})
    assert sql.count("?") == 3 and list(arguments) == [1, 2, 3]
    assert list(compiled.expand({"ids": []})[1]) == []


@pytest.mark.parametrize("parameters", [{}, {"nam": "x"}, {"name": "x", "more": 1}])
def test_wrong_names_are_told_with_the_right_ones(parameters: dict[str, object]) -> None:
    compiled = compiler_for(SQLITE).compile(BY_NAME, {"name": "x"})
    with pytest.raises(StatementError, match="it takes: name"):
        compiled.arguments(parameters)


def test_a_string_is_no_statement() -> None:
    with pytest.raises(StatementError, match="text"):
        compiler_for(SQLITE).compile("SELECT 1", {})  # type: ignore[arg-type]


def test_statements_built_on_the_fly_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATEMENTS_MAX", 8)
    compiler = compiler_for(SQLITE)
    for number in range(30):
        compiler.compile(sa.select(things.c.id).where(things.c.id == number), {})
    assert len(compiler.known) <= 8


def test_shards_merge_in_order() -> None:
    left, right = [{"n": 1}, {"n": 4}], [{"n": 2}, {"n": 3}]
    assert [row["n"] for row in merge([left, right], ("n", "asc"), 3)] == [1, 2, 3]
    assert [row["n"] for row in merge([left[::-1], right[::-1]], ("n", "desc"), None)] == [4, 3, 2, 1]
    assert merge([left, right], None, None) == left + right
