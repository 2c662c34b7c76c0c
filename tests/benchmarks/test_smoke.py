"""All versions that the benchmarks compare answer alike, on both databases. Nothing is timed here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import data, equality, mix, versions
from benchmarks.client import Session, closed_loop, open_loop
from benchmarks.servers import open_databases

DATA = data.make(data.TINY)


@pytest.fixture(autouse=True)
def _cores_as_before() -> Iterator[None]:
    """The benchmarks pin processes to cores; whatever happens, the tests after this one are not pinned."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_every_version_gives_the_same_answers(engine: str, tmp_path: Path) -> None:
    databases = open_databases(engine)
    try:
        asyncio.run(versions.load_all(databases.create, DATA))
        found = {}
        for version in versions.VERSIONS:
            with version.application(databases.copy(version.schema), tmp_path) as application:
                found[version.name] = equality.answers(application.port, DATA)
    finally:
        databases.close()
    assert equality.compare(found) > 300


def test_the_load_keeps_cookies_and_counts_every_answer(tmp_path: Path) -> None:
    databases = open_databases("sqlite")
    try:
        version = versions.EXAMPLE_ON
        asyncio.run(versions.load_all(databases.create, DATA, [version]))
        requests = mix.make(DATA, 500)
        with version.application(databases.copy(version.schema), tmp_path) as application:
            session = Session(requests, equality.tokens(application.port, DATA))
            closed = asyncio.run(closed_loop(application.port, session, 0.5, connections=4))
            opened = asyncio.run(open_loop(application.port, session, rate=100, seconds=0.5))
    finally:
        databases.close()
    assert closed.requests == len(closed.latencies) > 0
    assert opened.requests == len(opened.latencies) == len(opened.late) == 50
    assert any(b"cookie: outgrow_bookmark=" in session.next()[0] for _ in requests)


def test_a_different_answer_is_told_with_its_place() -> None:
    request = mix.Request("article", "GET", "/api/articles/a")
    one = equality.Answer(200, {"article": {"tagList": ["a", "b"]}})
    other = equality.Answer(200, {"article": {"tagList": ["a", "c"]}})
    with pytest.raises(equality.Different, match=r"article\.tagList\[1\]\nthis: b\nthat: c"):
        equality.compare({"this": [(request, one)], "that": [(request, other)]})


def test_the_mix_has_the_shares_that_it_promises() -> None:
    shares = mix.shares(mix.make(DATA, 20_000))
    assert {kind: round(shares[kind]) for kind in ("list", "article", "tags", "comments", "feed")} == {
        "list": 35,
        "article": 30,
        "tags": 10,
        "comments": 5,
        "feed": 10,
    }
    writes = ("favourite", "unfavourite", "comment", "follow", "unfollow", "create", "update")
    assert 9 < sum(shares[kind] for kind in writes) < 11


def test_the_data_is_the_same_each_time() -> None:
    assert data.make(data.TINY) == DATA
