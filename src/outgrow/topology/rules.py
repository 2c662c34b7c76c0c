"""What the keys must mean together, and what follows from them when they are absent."""

from __future__ import annotations

from collections.abc import Set

from msgspec.structs import replace

from outgrow.errors import Problem
from outgrow.topology.model import STAGES, Topology

DATA = ".outgrow/data"


def check(topology: Topology, given: Set[str]) -> list[Problem]:
    """Every contradiction. `given` holds the paths that the file really has."""
    problems = []
    database = topology.database
    if (
        "database.engine" in given
        and database.engine == "postgres"
        and topology.stage == STAGES[0]
        and not database.url
    ):
        problems.append(
            Problem(
                "database.engine",
                'at stage "single-server" the database is SQLite',
                hint='write stage = "separate-database", or give the url of a PostgreSQL of your own',
            )
        )
    if database.engine == "sqlite" and "database.engine" in given and database.url:
        problems.append(
            Problem("database.url", 'contradicts engine = "sqlite"', hint="remove one of the two")
        )
    if database.file and (database.url or (topology.stage != STAGES[0] and database.engine == "postgres")):
        problems.append(
            Problem("database.file", "is for SQLite, and this database is PostgreSQL", hint="remove it")
        )
    if database.migrations_url and not database.url:
        problems.append(
            Problem(
                "database.migrations_url",
                "needs database.url",
                hint="the fleet's own database has its own roles",
            )
        )
    if database.programs and database.url:
        problems.append(
            Problem(
                "database.programs", "contradicts database.url", hint="with a url Outgrow starts no server"
            )
        )
    return problems


def complete(topology: Topology) -> Topology:
    """The same with everything said that follows: the stage chooses the engine, the name the file."""
    database = topology.database
    separate = database.url is not None or topology.stage != STAGES[0]
    engine = "postgres" if separate else "sqlite"
    file = None if separate else database.file or f"{DATA}/{topology.application.name}.db"
    return replace(topology, database=replace(database, engine=engine, file=file))
