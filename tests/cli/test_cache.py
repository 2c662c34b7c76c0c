"""`outgrow cache`: what it shows of a fleet that runs, and what it has it forget."""

from __future__ import annotations

import sqlite3
import urllib.request
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
import pytest
from msgspec.structs import replace

from outgrow.advisor.caches import OUTCOMES, Reads
from outgrow.advisor.keys import Key
from outgrow.cli import cache
from outgrow.dashboard.caches import Caches, Process, Server
from tests.cli.conftest import Outcome, fails, run

NEVER_SEEN = "written behind the application's back"


def test_nothing_runs(application: Path) -> None:
    assert fails("cache", application, code=1) == fails("status", application, code=1)
    assert "outgrow up" in fails("cache", "flush", application, "--all", code=1)
    assert not (application / ".outgrow" / "growth").exists(), "nothing was changed"


@pytest.mark.parametrize(
    ("typed", "way"),
    [
        (("flush",), "--all"),
        (("flush", "--all", "--tag", "notes"), "leave out"),
        (("flush", "--tag", ""), "--all"),
        (("--tag", "notes"), "outgrow cache flush"),
        ((".", "flush"), "outgrow cache [flush] [APP_DIR]"),
        (("flush", "nowhere", "--all"), "nowhere"),
    ],
    ids=" ".join,
)
def test_what_was_typed_makes_no_sense(application: Path, typed: tuple[str, ...], way: str) -> None:
    assert way in fails("cache", *typed, code=2, cwd=application)


def test_what_is_shown_to_people() -> None:
    outcomes = dict.fromkeys(OUTCOMES, 0)
    articles = Reads("article", outcomes | {"hit": 1500, "miss": 500}, 2000, 0.75, 500, 0.0123)
    users = Reads("user", outcomes | {"session": 1}, 1, 0.0, 0, None)
    whole = Reads("", outcomes | {"hit": 1500, "miss": 500, "session": 1}, 2001, 1500 / 2001, 500, 0.0123)
    processes = [Process("app-1", 1234, 5 << 20, 6), Process("app-2", None)]
    server = Server(3 << 20, 128 << 20, 4321, 7)
    keys = [Key("article:a", 1200.5, 0.6, 2), Key("user:\x1b[2J" + "x" * 60, 0.25, 0.001, 0)]
    found = Caches("redis", whole, [articles, users], processes, server, keys)
    lines = [line.split() for line in click.unstyle(cache.text(found)).splitlines()]
    assert lines == [
        ["prefix", "reads", "hit", "rate", *OUTCOMES, "loads", "mean", "load"],
        ["article", "2,000", "75.0%", "1,500", "500", "500", "12.3", "ms"],
        ["user", "1", "0.0%", "1", "0"],
        ["all", "2,001", "75.0%", "1,500", "500", "1", "500", "12.3", "ms"],
        [],
        ["key", "reads/s", "share", "kept", "in"],
        ["article:a", "1,200.5", "60.0%", "2", "processes"],
        ["user:\N{REPLACEMENT CHARACTER}[2J" + "x" * 50 + "…", "0.2", "0.1%"],
        [],
        ["process", "entries", "memory", "evicted"],
        ["app-1", "1,234", "5.0", "MB", "6"],
        ["app-2", "unknown"],
        [],
        ["redis-cache", "3.0", "MB", "of", "128", "MB", "4,321", "keys", "7", "evicted"],
    ]
    nothing = Caches("memory", replace(whole, reads=0), [], [], None)
    assert cache.text(nothing).startswith("no reads yet")
    assert "is off" in cache.text(replace(nothing, engine="off"))
    silent = replace(found, server=Server(trouble="redis-cache does not answer"))
    assert click.unstyle(cache.text(silent)).endswith("\nredis-cache does not answer")


def shown(url: str) -> list[str]:
    """What somebody is shown who has never been there."""
    with urllib.request.urlopen(f"{url}/notes", timeout=5) as response:
        return [each["text"] for each in msgspec.json.decode(response.read())["notes"]]


def test_a_running_fleet_tells_and_forgets(application: Path, detached: Callable[..., Outcome]) -> None:
    started = detached(application, "--json", "--port", "0")
    url = started.events[-1]["url"]
    assert shown(url) == shown(url) == shown(url) == []
    document = run("cache", application, "--json").document
    [notes] = document["prefixes"]
    assert notes["prefix"] == "notes" and notes["reads"] == 3 and notes["hit_rate"] == pytest.approx(2 / 3)
    assert notes["outcomes"]["miss"] == notes["loads"] == 1 and 0 < notes["load_seconds"] < 5
    [process] = document["processes"]
    assert (process["node"], process["entries"], process["evicted"]) == ("app", 1, 0) and process["bytes"] > 0
    assert document["server"] is None
    [key] = document["keys"]
    assert key["key"] == "notes:newest" and key["share"] == 1 and 0 < key["rate"] <= 3

    _write_behind(application)
    flushed = [("--tag", "other"), ("--tag", "other", "--tag", "notes:newest"), ("--all",)]
    for arguments, seen in zip(flushed, (0, 1, 2), strict=True):
        outcome = run("cache", "flush", application, *arguments)
        assert outcome.code == 0 and "forgotten" in outcome.out, outcome
        assert shown(url) == [NEVER_SEEN] * seen
        if seen:
            _write_behind(application)
            assert len(shown(url)) == seen, "the cache cannot know"
    audit = (application / ".outgrow" / "growth" / "audit.jsonl").read_text().splitlines()
    lines = [msgspec.json.decode(line) for line in audit]
    assert [(line["move"], line["to"], line["outcome"]) for line in lines] == [
        ("cache flush", "other", "done"),
        ("cache flush", "other notes:newest", "done"),
        ("cache flush", "everything", "done"),
    ]


def _write_behind(application: Path) -> None:
    [path] = (application / ".outgrow").rglob("*.db")
    with sqlite3.connect(path, timeout=10) as connection:
        connection.execute("INSERT INTO notes (id, text) SELECT count(*) + 1, ? FROM notes", (NEVER_SEEN,))
    connection.close()
