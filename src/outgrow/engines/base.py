"""What an engine is: it turns a topology into the programs that one kind of server needs.

An engine knows its server (where its programs are, its configuration, how to start, watch and stop
it) and nothing of the application's code. Making its values touches nothing but what it must look up
on the disk; the supervisor acts on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from outgrow.workload import Workload


class Placement(NamedTuple):
    """Where the nodes of a fleet live: the application's folder, the fleet's own, the host of a server.

    `release` is the number of the kept code that the application's processes run; 0 is what its folder holds.
    `slot` is 0 or 1: a server and its successor run side by side, each with an own address in another slot.
    """

    application: Path
    state: Path
    host: str
    release: int = 0
    slot: int = 0

    def neighbour(self, number: int) -> str:
        """The loopback host of another node of the fleet, from 1 to 254."""
        return f"{self.host.rpartition('.')[0]}.{number}"

    @property
    def releases(self) -> Path:
        """The code of each deploy, in a folder named with its number."""
        return self.state / "releases"

    @property
    def code(self) -> Path:
        """Where the application's processes run."""
        return self.releases / str(self.release) if self.release else self.application

    @property
    def data(self) -> Path:
        """What must outlive the fleet."""
        return self.state / "data"

    @property
    def endpoints(self) -> Path:
        """The document that joins the two halves."""
        return self.state / "endpoints.json"

    @property
    def control(self) -> Path:
        """Where the application's processes listen for the fleet."""
        return self.state / "run"

    @property
    def secrets(self) -> Path:
        """What the application's processes may know."""
        return self.state / "secrets.json"

    @property
    def operator_secrets(self) -> Path:
        """What only the fleet's own programs may know: the passwords of roles that can change the schema."""
        return self.state / "operator-secrets.json"


class Engine(Protocol):
    """One kind of server."""

    def workloads(self) -> tuple[Workload, ...]:
        """What must run, jobs included, each naming what it comes after."""
        ...
