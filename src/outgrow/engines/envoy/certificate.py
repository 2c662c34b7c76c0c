"""The certificate that Envoy shows, and its successor while it runs.

    certificate.json (where they are) ─► tls-HASH/{server.crt, server.key} ◄─ tls ◄─ Envoy

Whoever renews a certificate writes two files, one after the other, in place or by a link (certbot). Envoy
looks for renames alone, and would see half of a pair. So it gets copies: of a pair that fits, and both with
one rename.
"""

from __future__ import annotations

import json
import shutil
import ssl
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from outgrow.engines.envoy.tls import certify

WANTED, CURRENT = "certificate.json", "tls"
CERTIFICATE, KEY = "server.crt", "server.key"
KEPT = 2
"""Copies: the one in use and the one before, which Envoy may be reading."""


class Wanted(NamedTuple):
    """The two files; `hosts` are those of a certificate that is of our own making, and so for us to renew."""

    certificate: str
    key: str
    hosts: list[str]


class Certificate:
    """In the folder of a balancer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[object, ...] = ()

    def renew(self) -> None:
        """Make the one of our own anew when it has not long to live. Raises FleetError, EngineMissing."""
        wanted = self._wanted()
        if wanted is not None and wanted.hosts:
            certify(Path(wanted.certificate).parent, wanted.hosts)

    def turn(self) -> None:
        """Give Envoy what is there now. Raises OSError, also (ssl.SSLError) for a pair that does not fit."""
        wanted = self._wanted()
        if wanted is None:
            return
        pair = Path(wanted.certificate), Path(wanted.key)
        seen = tuple([(str(each), *_state(each)) for each in pair])
        if seen == self._seen:
            return
        self._take(*pair)
        self._seen = seen

    def _wanted(self) -> Wanted | None:
        try:
            return Wanted(**json.loads((self._folder / WANTED).read_text()))
        except FileNotFoundError:
            return None

    def _take(self, certificate: Path, key: Path) -> None:
        pair = {CERTIFICATE: certificate.read_bytes(), KEY: key.read_bytes()}
        copy = self._folder / f"{CURRENT}-{blake2b(b'|'.join(pair.values()), digest_size=8).hexdigest()}"
        copy.mkdir(mode=0o700, exist_ok=True)
        for name, content in pair.items():
            (copy / name).touch(mode=0o600)
            (copy / name).write_bytes(content)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(copy / CERTIFICATE, copy / KEY)
        except ssl.SSLError:
            shutil.rmtree(copy, ignore_errors=True)
            raise
        link = self._folder / f".{CURRENT}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(copy.name)
        link.replace(self._folder / CURRENT)
        copies = sorted(self._folder.glob(f"{CURRENT}-*"), key=lambda each: each.stat().st_mtime_ns)
        for old in copies[:-KEPT]:
            if old != copy:
                shutil.rmtree(old, ignore_errors=True)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


def begin(folder: Path) -> Certificate:
    """Before Envoy starts. What is wrong with the certificate Envoy itself says then."""
    made = Certificate(folder)
    with suppress(OSError):
        made.turn()
    return made
