"""The balancer's certificate, when none is given: made and signed by a CA of the fleet's own.

    python -m outgrow.engines.envoy.tls FOLDER HOST...

Run by the fleet as a job, and by each balancer while it serves (certificate.py). Whoever is to trust the
balancer is told to trust FOLDER/ca.crt. The CA stays; the certificate is made again for other hosts, or when
it has not long to live.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from outgrow.engines import job
from outgrow.errors import EngineMissing, FleetError

CA_DAYS = "3650"
DAYS = "397"
"""The longest that browsers accept."""

RENEW_BEFORE_S = str(60 * 24 * 3600)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


def certify(folder: Path, hosts: Sequence[str]) -> None:
    """A CA and a certificate for these hosts, unless they are there. Raises FleetError, EngineMissing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:  # every balancer renews it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ca.crt").exists():
            _make_ca(folder)
        if not _fits(folder, hosts):
            _make_certificate(folder, hosts)


def _make_ca(folder: Path) -> None:
    openssl(
        folder,
        *("req", "-x509", *CURVE, "-days", CA_DAYS, "-subj", "/CN=Outgrow local CA"),
        *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", "ca.key", "-out", "ca.crt.new"),
    )
    (folder / "ca.crt.new").rename(folder / "ca.crt")


def _fits(folder: Path, hosts: Sequence[str]) -> bool:
    try:
        same = json.loads((folder / "hosts.json").read_text()) == list(hosts)
    except (OSError, ValueError):
        return False
    return same and _lives(folder)


def _lives(folder: Path) -> bool:
    argv = ["openssl", "x509", "-in", "server.crt", "-noout", "-checkend", RENEW_BEFORE_S]
    return subprocess.run(argv, cwd=folder, capture_output=True, check=False).returncode == 0


def _make_certificate(folder: Path, hosts: Sequence[str]) -> None:
    """`hosts.json` comes last: what was made by halves is made again."""
    (folder / "hosts.json").unlink(missing_ok=True)
    names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
    openssl(
        folder,
        *("req", "-x509", *CURVE, "-days", DAYS, "-subj", "/CN=Outgrow balancer"),
        *("-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"),
        *("-keyout", "server.key", "-out", "server.crt"),
    )
    (folder / "hosts.json").write_text(json.dumps(list(hosts)))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def openssl(folder: Path, *arguments: str) -> None:
    """Every file that it makes is for this user alone."""
    argv = ["openssl", *arguments]
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            umask=0o077,
        )
    except FileNotFoundError:
        raise EngineMissing("openssl", install="apt-get install openssl") from None
    if done.returncode != 0:
        raise FleetError(f"openssl failed: {(done.stderr or done.stdout).strip()}")


def main(arguments: list[str]) -> int:
    """Make what is missing; returns the exit code."""
    folder, *hosts = arguments
    return job.run(folder, lambda: certify(Path(folder), hosts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
