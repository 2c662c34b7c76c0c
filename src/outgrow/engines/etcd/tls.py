"""The key of etcd's nodes and clients, and its certificate:

    python -m outgrow.engines.etcd.tls FOLDER HOST...

Run by the fleet as a job. It is kept; for other hosts it is refused, since etcd's nodes remember where they
were, and their data would be of no use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from outgrow.engines import job
from outgrow.engines.envoy.tls import CURVE, openssl
from outgrow.errors import FleetError

DAYS = "3650"


def certify(folder: Path, hosts: Sequence[str]) -> None:
    """Make it unless it is there. Raises FleetError when it is there for other hosts, EngineMissing."""
    known = folder / "hosts.json"
    if known.exists():
        if json.loads(known.read_text()) != list(hosts):
            raise FleetError(
                f"etcd's data is of {', '.join(json.loads(known.read_text()))}, "
                f"and these addresses are not free now",
                hint="another fleet has them: stop it with `outgrow down`, then start this one",
            )
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # etcd compares a client's address with those in its certificate, too, and on loopback all come from here.
    names = ",".join(f"IP:{host}" for host in (*hosts, "127.0.0.1"))
    openssl(
        folder,
        *("req", "-x509", *CURVE, "-days", DAYS, "-subj", "/CN=Outgrow etcd"),
        *("-addext", f"subjectAltName={names}", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        *("-keyout", "etcd.key", "-out", "etcd.crt"),
    )
    unfinished = folder / "hosts.new"
    unfinished.write_text(json.dumps(list(hosts)))
    unfinished.rename(known)


def main(arguments: list[str]) -> int:
    """Make what is missing; returns the exit code."""
    folder, *hosts = arguments
    return job.run(folder, lambda: certify(Path(folder), hosts), ValueError)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
