"""Brings what etcd says of all nodes up to date with outgrow.toml, before they start:

    python -m outgrow.engines.patroni.settings FILE

Run by the fleet as a job. A cluster that does not exist yet takes it from its first node.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from outgrow.engines import job
from outgrow.engines.etcd.client import Client

OWN = ("standby_cluster",)
"""What a growth has set for as long as it lasts: it stays as etcd has it."""


def update(file: Path) -> None:
    """Write it into etcd if there is a cluster. Raises FleetError."""
    wanted = json.loads(file.read_text())
    client = Client(wanted["etcd"])
    try:
        key = f"/outgrow/{wanted['scope']}/config"
        entry = client.below(key).get("")
        if entry is not None:
            client.put(key, json.dumps(merged(json.loads(entry.value), wanted["config"])))
    finally:
        client.close()


def merged(known: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What is wanted, with what is not outgrow.toml's to say."""
    kept = {name: known[name] for name in OWN if name in known}
    return {**{name: value for name, value in wanted.items() if name not in OWN}, **kept}


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    return job.run("the settings of the replicas", lambda: update(Path(arguments[0])), ValueError, KeyError)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
