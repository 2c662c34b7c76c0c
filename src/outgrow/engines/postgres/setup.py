"""What PostgreSQL needs before and after its first start. Run by the fleet as jobs:

    python -m outgrow.engines.postgres.setup initialise PROGRAMS DATA [CERTIFICATES HOST]
    python -m outgrow.engines.postgres.setup follow PROGRAMS DATA URL
    python -m outgrow.engines.postgres.setup provision ADMIN_URL NAME

All may be run again and again. Passwords come from the file that OUTGROW_SECRETS names.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from outgrow import endpoints
from outgrow.endpoints import CHANGES
from outgrow.engines import job
from outgrow.engines.postgres.postgres import REPLICATION
from outgrow.engines.postgres.scram import verifier
from outgrow.errors import EngineMissing, FleetError

CERTIFICATE_DAYS = "3650"


def initialise(programs: Path, data: Path, password: str) -> None:
    """Make the data directory unless it is there. It appears by one rename: half a one never counts."""
    if data.exists():
        _require_same_version(programs, data)
        return
    unfinished = data.with_name(f"{data.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as secret:  # made with mode 0600
        secret.write(password)
        secret.flush()
        _run(
            programs / "initdb",
            "-D",
            unfinished,
            "-U",
            "outgrow_admin",
            "--auth=scram-sha-256",
            f"--pwfile={secret.name}",
            "--locale=C",
            "--encoding=UTF8",
            "--no-instructions",
        )
    unfinished.rename(data)


def _require_same_version(programs: Path, data: Path) -> None:
    kept = (data / "PG_VERSION").read_text().strip()
    told = _run(programs / "postgres", "--version")
    if f" {kept}." not in told and f" {kept}beta" not in told and not told.strip().endswith(f" {kept}"):
        raise FleetError(
            f"{data} was made by PostgreSQL {kept}, and {programs} has {told.strip()}",
            hint="name its own installation as programs under [database], or dump and restore the data",
        )


def certify(folder: Path, host: str) -> None:
    """A certificate of our own for this host; the application trusts exactly this one."""
    certificate, key = folder / "server.crt", folder / "server.key"
    marker = folder / "host"
    if certificate.exists() and key.exists() and marker.exists() and marker.read_text() == host:
        return
    if shutil.which("openssl") is None:
        raise EngineMissing("openssl", install="apt-get install openssl")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker.unlink(missing_ok=True)
    key.touch(mode=0o600)
    _run(
        "openssl",
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
        *("-days", CERTIFICATE_DAYS, "-subj", "/CN=outgrow", "-addext", f"subjectAltName=IP:{host}"),
        *("-keyout", key, "-out", certificate),
    )
    marker.write_text(host)


def _run(*argv: str | Path, password: str = "") -> str:
    variables = {**os.environ, "PGPASSWORD": password} if password else None
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=variables
    )
    if done.returncode != 0:
        raise FleetError(f"{Path(argv[0]).name} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def follow(programs: Path, data: Path, url: str, password: str) -> None:
    """Copy the server at `url`, unless it has been done; the copy will follow it. Whole or not there."""
    if data.exists():
        return
    unfinished = data.with_name(f"{data.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    _run(
        programs / "pg_basebackup",
        *("--dbname", url, "--pgdata", unfinished, "--wal-method=stream", "--checkpoint=fast"),
        *("--write-recovery-conf", "--no-password"),
        password=password,
    )
    unfinished.rename(data)


async def provision(url: str, name: str, passwords: dict[str, str]) -> None:
    """The roles and the database of the application, with the least that each must be able to do."""
    import asyncpg

    owner = f"{name}_owner"
    server = await asyncpg.connect(url, password=passwords["admin"], timeout=30)
    try:
        for role, kind in ((owner, "migrations"), (name, "*")):
            await _ensure_role(server, role, verifier(role, passwords[kind]))
        if "replication" in passwords:
            secret = verifier(REPLICATION, passwords["replication"])
            await _ensure_role(server, REPLICATION, secret, may="REPLICATION")
        if not await server.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await server.execute(f'CREATE DATABASE "{name}" OWNER "{owner}"')
        await server.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        await server.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{name}"')
        await provision_changes(server, name, passwords.get("changes"))
    finally:
        await server.close()
    inside = await asyncpg.connect(url, database=name, password=passwords["admin"], timeout=30)
    try:
        await inside.execute(_RIGHTS.format(owner=f'"{owner}"', application=f'"{name}"'))
        await inside.execute(LOOK.format(application=f'"{name}"'))
    finally:
        await inside.close()


async def provision_changes(server: Any, name: str, password: str | None) -> None:
    """The role that reads what has changed. Without a password nobody does: a slot would keep the log."""
    role = f"{name}{CHANGES}"
    if password is not None:
        await _ensure_role(server, role, verifier(role, password), may="REPLICATION")
        await server.execute(f'GRANT CONNECT ON DATABASE "{name}" TO "{role}"')
    elif await server.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await server.execute(f'ALTER ROLE "{role}" NOLOGIN NOREPLICATION')
        await server.fetch(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = $1 AND NOT active",
            role,
        )


LOOK = """
CREATE SCHEMA IF NOT EXISTS outgrow;
CREATE OR REPLACE FUNCTION outgrow.receiving() RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'SELECT received_tli FROM pg_stat_wal_receiver';
CREATE OR REPLACE FUNCTION outgrow.history(timeline integer) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$SELECT pg_read_file(
        'pg_wal/' || lpad(upper(to_hex(timeline)), 8, '0') || '.history', 0, 65536, true)$$;
REVOKE ALL ON SCHEMA outgrow FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outgrow FROM PUBLIC;
GRANT USAGE ON SCHEMA outgrow TO {application};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outgrow TO {application};
"""
"""What the application looks at its nodes with, and nothing more (runtime/database/postgres_look.py): which
timeline a replica receives, and where a timeline left the one before it. Only a superuser may read that."""

_RIGHTS = """
ALTER SCHEMA public OWNER TO {owner};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {application};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {application};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO {application};
"""


async def _ensure_role(server: Any, role: str, secret: str, *, may: str = "NOREPLICATION") -> None:
    """A role statement takes no parameters. The name is checked by the topology, the secret is ours."""
    if not role.replace("_", "").isalnum():
        raise FleetError(f"role {role}: its name has signs that do not belong there")
    known = await server.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if known else "CREATE"
    rights = f"LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE {may}"
    # The server would log the statement with its secret, were it to fail or to be slow.
    await server.execute("SET log_min_duration_statement = -1; SET log_min_error_statement = panic")
    await server.execute(f"{verb} ROLE \"{role}\" {rights} PASSWORD '{secret}'")


def main(arguments: list[str]) -> int:
    """Run one of them; returns the exit code."""
    return job.run(arguments[0] if arguments else "no job", lambda: _job(arguments))


def _job(arguments: list[str]) -> None:
    passwords = endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords
    match arguments:
        case ["initialise", programs, data, *tls]:
            initialise(Path(programs), Path(data), passwords["admin"])
            if tls:
                certify(Path(tls[0]), tls[1])
        case ["follow", programs, data, url]:
            follow(Path(programs), Path(data), url, passwords["replication"])
        case ["provision", url, name]:
            asyncio.run(provision(url, name, passwords))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
