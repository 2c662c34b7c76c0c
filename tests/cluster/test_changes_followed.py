"""The fleet's own PostgreSQL as a cache that follows its changes needs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from outgrow import endpoints
from outgrow.endpoints import read_secrets
from tests.support.fleets import RunningFleet, make_application, wait_until
from tests.support.redis import program

FOLLOWED = '[cache]\nengine = "redis"\nfollow_changes = ["notes"]\n'
DECLARED = """
@og.cache.changes("notes")
def changed(row):
    return ["notes"]


class NewNote("""
SLOTS = "SELECT slot_name, active FROM pg_replication_slots"
PUBLISHED = "SELECT tablename FROM pg_publication_tables WHERE pubname = 'outgrow_changes'"
ROLE = "SELECT rolcanlogin, rolreplication, rolsuper FROM pg_roles WHERE rolname = 'hello_changes'"


def ask(fleet: RunningFleet, statement: str, user: str = "hello", role: str = "*") -> list[Any]:
    """As one of its roles."""
    place = fleet.state.placement()
    url = endpoints.read(place.endpoints).database.shards[0].nodes[0].url.replace("hello@", f"{user}@")

    async def run() -> list[Any]:
        secret = read_secrets(place.operator_secrets).passwords[role]
        connection = await asyncpg.connect(url, password=secret)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.mark.timeout(90)
def test_a_fleet_follows_changes(tmp_path: Path) -> None:
    program()
    application = make_application(tmp_path / "hello")
    file, code = application / "outgrow.toml", application / "app.py"
    plain = file.read_text().replace('stage = "single-server"', 'stage = "separate-database"')
    file.write_text(plain.replace("[cache]\n", FOLLOWED))
    code.write_text(code.read_text().replace("\nclass NewNote(", DECLARED))
    fleet = RunningFleet(application, "separate-database")
    try:
        fleet.start()
        with httpx.Client(base_url=fleet.url) as client:
            client.post("/notes", json={"text": "old"})
            wait_until(lambda: "old" in client.get("/notes").text, "the note")
            wait_until(lambda: ask(fleet, SLOTS) == [("hello_changes", True)], "somebody who reads")
            ask(fleet, "UPDATE notes SET text = 'new'", "hello_owner", "migrations")
            wait_until(lambda: '"new"' in client.get("/notes").text, "what psql has changed", 5)
        assert ask(fleet, PUBLISHED) == [("notes",)]
        assert ask(fleet, ROLE) == [(True, True, False)]
        with pytest.raises(asyncpg.PostgresError):
            ask(fleet, "SELECT * FROM public.notes", "hello_changes", "changes")
        assert "changes" in read_secrets(fleet.state.placement().secrets).passwords
    finally:
        fleet.end()
