"""Which application a command is about: its directory, and its topology with what was typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from outgrow.errors import Misuse

if TYPE_CHECKING:
    from outgrow.topology.model import Topology

FILE = "outgrow.toml"
STATE = ".outgrow"
"""What a fleet keeps in the application's directory."""


def directory_with_topology(given: Path | None) -> Path:
    """The directory given, or this one or the nearest above it that holds outgrow.toml. Raises Misuse."""
    if given is not None:
        if not given.exists():
            raise Misuse(f"{given} does not exist", hint=f"`outgrow new {given}` makes an application there")
        if not given.is_dir():
            raise Misuse(f"{given} is not a directory", hint=f"name the directory that holds {FILE}")
    found = _upwards(given, FILE)
    if found is None:
        where = f"{given}" if given is not None else "this directory, nor in one above it"
        raise Misuse(
            f"there is no {FILE} in {where}", hint="`outgrow new DIR` makes an application to start from"
        )
    return found


def fleet_directory(given: Path | None) -> Path:
    """The same for commands about what runs or has run: they work without outgrow.toml too. Raises Misuse."""
    return _upwards(given, STATE, FILE) or directory_with_topology(given)


def logs(directory: Path) -> Path:
    """Where the fleet of this directory keeps its logs."""
    return directory / STATE / "logs"


def topology(directory: Path, *, stage: str | None = None, port: int | None = None) -> Topology:
    """outgrow.toml with what was typed over it. Raises TopologyError, Misuse, NotBuiltYet."""
    from outgrow import stages
    from outgrow.topology import parse_file

    read = parse_file(directory / FILE)
    applied = stages.apply(read, read.stage if stage is None else stage)
    if stage is not None:
        read = applied
    return read if port is None else read.with_port(port)


def topology_of_data(directory: Path) -> Topology:
    """outgrow.toml at the stage of the fleet that runs here, or has run last."""
    from outgrow.cluster.state import State

    published = State(directory).published()
    return topology(directory, stage=published.stage if published is not None else None)


def _upwards(given: Path | None, *names: str) -> Path | None:
    here = Path.cwd()
    places = (given.resolve(),) if given is not None else (here, *here.parents)
    return next((place for place in places if any((place / name).exists() for name in names)), None)
