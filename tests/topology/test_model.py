"""A Topology is a value: it cannot be changed, it can be compared, sent and printed without a secret."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from outgrow.topology import Topology, parse
from outgrow.topology.diff import Change, diff
from outgrow.topology.model import Section

FULL = """
stage = 2
[application]
secret = "tell-nobody-0123456789-0123456789"
environment = { API_KEY = "hunter2" }
[database]
url = "postgresql://me:hunter2@db.internal:5432/app"
migrations_url = "postgresql://owner:hunter2@db.internal/app?sslmode=require"
replica_urls = ["postgresql://me:hunter2@replica.internal:5432/app"]
"""


def sections(topology: Topology) -> list[Section]:
    return [
        topology,
        *(
            each
            for each in map(topology.__getattribute__, topology.__struct_fields__)
            if isinstance(each, Section)
        ),
    ]


def test_nothing_can_be_changed() -> None:
    for section in sections(parse("")):
        for field in section.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(section, field, None)


def test_equal_when_they_mean_the_same() -> None:
    assert parse("stage = 1\n[database]\nstatement_timeout = 30") == parse("")
    assert parse("stage = 2") != parse("")


def test_a_topology_can_be_sent_to_another_process() -> None:
    for text in ("", "stage = 2", FULL):
        topology = parse(text)
        assert msgspec.json.decode(msgspec.json.encode(topology), type=Topology) == topology


def test_printed_it_shows_no_secret() -> None:
    topology = parse(FULL)
    with io.StringIO() as file:
        Console(file=file, width=500).print(topology)
        pretty = file.getvalue()
    for shown in (repr(topology), str(topology.application), f"{topology.database}", pretty):
        assert "hunter2" not in shown and "tell-nobody" not in shown
    assert "postgresql://me:***@db.internal:5432/app" in repr(topology.database)
    assert "postgresql://owner:***@db.internal/app?sslmode=require" in repr(topology.database)
    assert "{'API_KEY': '***'}" in repr(topology.application)


def test_what_is_no_secret_is_shown() -> None:
    shown = repr(parse('[database]\nurl = "postgresql://me@db.internal:5432/app"'))
    assert "url='postgresql://me@db.internal:5432/app'" in shown
    assert "secret=None" in shown and "pool=10" in shown


def test_a_url_that_no_parser_has_seen_is_hidden_rather_than_shown() -> None:
    for url in ("postgres://me:hunter2/x@h/d", "postgres://me:hunt:er2@h", "me:hunter2@h"):
        shown = repr(msgspec.structs.replace(Topology().database, url=url))
        assert "unter2" not in shown and "er2" not in shown


# --- The difference of two ---------------------------------------------------------------------------


def test_no_difference() -> None:
    assert diff(parse(FULL), parse(FULL)) == ()


def test_every_key_that_differs_in_the_order_of_the_file() -> None:
    before = parse("[database]\npool = 5\n[cache]\nentries = 7")
    after = parse("stage = 2\n[application]\nport = 9\n[database]\npool = 6\n[cache]\nentries = 7")
    assert diff(before, after) == (
        Change("stage", "single-server", "separate-database"),
        Change("application.port", 8000, 9),
        Change("database.engine", "sqlite", "postgres"),
        Change("database.file", ".outgrow/data/app.db", None),
        Change("database.pool", 5, 6),
    )


def test_there_and_back() -> None:
    forth, back = diff(parse(""), parse(FULL)), diff(parse(FULL), parse(""))
    assert back == tuple(Change(path, after, before) for path, before, after in forth)


def test_a_difference_shows_no_secret() -> None:
    found = diff(parse(""), parse(FULL))
    assert {"application.secret", "application.environment", "database.url"} <= {each.path for each in found}
    assert "hunter2" not in f"{found} {found[0]}" and "tell-nobody" not in repr(found)
    assert "stage: 'single-server' -> 'separate-database'" in repr(found)
