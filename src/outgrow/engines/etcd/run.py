"""A node of etcd, which comes back also when its data is gone:

    python -m outgrow.engines.etcd.run PROGRAM --OPTION=VALUE...

    its data is there ─────────────────────────────► etcd
    the others know it, with data ─► they forget it ─► they take it in anew ─► etcd, which copies theirs
    nobody knows it yet ───────────────────────────► etcd, of a new cluster

etcd itself refuses: a node that has once been a member and remembers nothing could give its vote twice.
Forgotten and taken in anew it is another member, with another number, that has not voted yet. The others
have to be a majority for that: of two nodes that have lost their data none comes back.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from outgrow.engines.etcd.client import Client
from outgrow.errors import FleetError

CLIENTS = 2379
JOINS_WITHIN_S = 30.0
"""The others change nothing in the first seconds after they have lost sight of one of them."""

EVERY_S = 0.5


def joins(options: Mapping[str, str]) -> bool:
    """Whether the others have taken it in, as one without data. Raises FleetError when they refuse."""
    own = options["initial-advertise-peer-urls"]
    client = Client(
        {
            "hosts": _others(options["initial-cluster"], own),
            "cacert": options["trusted-ca-file"],
            "cert": options["cert-file"],
            "key": options["key-file"],
        }
    )
    try:
        try:
            known = {peer: member for member in client.members() for peer in member.peers}.get(own)
        except FleetError:
            return False  # nobody is there; if they know it after all, etcd ends, and this is asked again
        if known is not None and not known.started:
            return not known.name  # taken in, or of a new cluster
        if known is not None:
            client.forget(known)
        client.take_in(own)
        return True
    finally:
        client.close()


def _others(cluster: str, own: str) -> list[str]:
    """The clients' addresses of the other nodes, from "name=https://host:port,..."."""
    urls = [each.partition("=")[2] for each in cluster.split(",")]
    return [f"{urlsplit(url).hostname}:{CLIENTS}" for url in urls if url != own]


def _join(options: Mapping[str, str]) -> bool:
    deadline = time.monotonic() + JOINS_WITHIN_S
    while True:
        try:
            return joins(options)
        except FleetError:
            if time.monotonic() > deadline:
                raise
            time.sleep(EVERY_S)


def main(arguments: Sequence[str]) -> NoReturn:
    """Be etcd."""
    program, *given = arguments
    pairs = (each.removeprefix("--").partition("=") for each in given)
    options = {name: value for name, _, value in pairs}
    if not (Path(options["data-dir"]) / "member").exists():
        try:
            joined = _join(options)
        except (FleetError, OSError) as error:
            sys.stderr.write(f"its data is gone, and the others do not take it in: {error}\n")
            sys.exit(1)
        given += ["--initial-cluster-state=existing"] * joined
    os.execv(program, [program, *given])  # noqa: S606, a list of arguments and no shell


if __name__ == "__main__":
    main(sys.argv[1:])
