"""Whether a copy is whole: every file of it read again, and compared with PostgreSQL's own manifest.

It is what pg_verifybackup does. That program crashes in the packaged PostgreSQL, even when it is only to
tell its version, and before version 18 it reads no archives.
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import msgspec

from outgrow.errors import VerificationFailed

PART = 1 << 20
BESIDES = frozenset({"backup_label", "tablespace_map", "backup_manifest"})
"""May differ, or are in no manifest."""


def manifest(place: Path) -> dict[str, Any]:
    """The manifest. Raises VerificationFailed when it is not as it was written."""
    raw = (place / "backup_manifest").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(raw)
    said, _, _ = raw.rpartition(b'"Manifest-Checksum"')
    if hashlib.sha256(said).hexdigest() != found["Manifest-Checksum"]:
        raise VerificationFailed(f"{place}: the manifest is damaged")
    return found


def examine(place: Path) -> None:
    """Raises VerificationFailed with the first file that is missing, too much or different."""
    wanted = {each["Path"]: each for each in manifest(place)["Files"] if "Path" in each}
    seen = set()
    with tarfile.open(place / "base.tar.gz") as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            name = member.name.removeprefix("./")
            if name in BESIDES and name not in wanted:
                continue
            if name not in wanted:
                raise VerificationFailed(f"{place}: {name} does not belong there")
            if _digest(tar, member) != wanted[name]["Checksum"]:
                raise VerificationFailed(f"{place}: {name} is damaged")
            seen.add(name)
    missing = wanted.keys() - seen
    if missing:
        raise VerificationFailed(f"{place}: {min(missing)} is missing")


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    content = tar.extractfile(member)
    assert content is not None
    digest = hashlib.sha256()
    while part := content.read(PART):
        digest.update(part)
    return digest.hexdigest()
