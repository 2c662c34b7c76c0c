"""The versions that are compared: how each gets its data and how it is started."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from argon2 import PasswordHasher

from benchmarks.conduit import load as conduit
from benchmarks.conventional import load as conventional
from benchmarks.data import PASSWORD, Data
from benchmarks.servers import ROOT, Application, free_port
from benchmarks.sketch import load as sketch
from outgrow import endpoints

EXAMPLE = ROOT / "examples" / "conduit"
PROBE = "/api/tags"
POOL = 10

# The cheapest that argon2 does: logging in is not what is measured.
_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(frozen=True)
class Version:
    """`schema` is whose tables it works on: versions with the same one share their data."""

    name: str
    schema: str
    load: Callable[[str, Data, str], Awaitable[None]]
    application: Callable[[str, Path], Application]
    """Takes the database's URL and a directory of its own."""


async def _load_sketch(url: str, data: Data, password: str) -> None:
    if url.startswith("sqlite"):
        sketch.into_sqlite(Path(url.removeprefix("sqlite:///")), data, password)
    else:
        await sketch.into_postgres(url, data, password)


async def _load_example(url: str, data: Data, password: str) -> None:
    await conduit.into(url, EXAMPLE / "migrations", data, password)


def _plain(module: str, variable: str) -> Callable[[str, Path], Application]:
    def application(url: str, directory: Path) -> Application:
        port = free_port()
        arguments = ["-m", "benchmarks.serve", f"{module}:app", str(port)]
        return Application(arguments, {variable: url}, ROOT, port, PROBE)

    return application


def outgrow_application(
    url: str,
    directory: Path,
    *,
    reference: str = "conduit.app:app",
    place: Path = EXAMPLE,
    cache: bool = True,
    access_log: bool = False,
    probe: str = PROBE,
) -> Application:
    """An application on Outgrow as the fleet would start it, metrics on."""
    document = endpoints_document(url, directory, cache=cache, access_log=access_log)
    port = free_port()
    environment = {
        "OUTGROW_APP": reference,
        "OUTGROW_PORT": str(port),
        "OUTGROW_ENDPOINTS": str(document),
        "OUTGROW_WORKER": "1",
    }
    return Application(["-m", "outgrow.runtime.serve"], environment, place, port, probe)


def endpoints_document(url: str, directory: Path, *, cache: bool, access_log: bool) -> Path:
    """Where everything is, written as the fleet would write it."""
    bare, passwords = _without_password(url)
    secrets = directory / "secrets.json"
    endpoints.write(secrets, endpoints.secrets_of("of the benchmarks, not of anything else", passwords))
    node = endpoints.Node("db", bare)
    document = endpoints.Endpoints(
        application="benchmark",
        stage="single-server" if url.startswith("sqlite") else "separate-database",
        database=endpoints.Database(
            engine="sqlite" if url.startswith("sqlite") else "postgres",
            shards=(endpoints.Shard("0", (node,)),),
            pool=POOL,
        ),
        cache=endpoints.Cache(engine="memory" if cache else "off", entries_max=50_000),
        telemetry=endpoints.Telemetry(access_log=access_log),
        secrets_file=str(secrets),
    )
    endpoints.write(directory / "endpoints.json", document)
    return directory / "endpoints.json"


def _without_password(url: str) -> tuple[str, dict[str, str]]:
    """The URL as the document may hold it, and what belongs into the secrets."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, {}
    bare = parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}")
    return urlunsplit(bare), {"db": parts.password}


def _example(cache: bool) -> Callable[[str, Path], Application]:
    return lambda url, directory: outgrow_application(url, directory, cache=cache)


SKETCH = Version("sketch", "sketch", _load_sketch, _plain("benchmarks.sketch.app", "SKETCH_DATABASE"))
CONVENTIONAL = Version(
    "conventional",
    "conventional",
    conventional.into,
    _plain("benchmarks.conventional.app", "CONVENTIONAL_DATABASE"),
)
EXAMPLE_OFF = Version("example, cache off", "example", _load_example, _example(False))
EXAMPLE_ON = Version("example, cache on", "example", _load_example, _example(True))
VERSIONS: Sequence[Version] = (SKETCH, EXAMPLE_OFF, EXAMPLE_ON, CONVENTIONAL)


async def load_all(create: Callable[[str], str], data: Data, versions: Sequence[Version] = VERSIONS) -> None:
    """Fill the tables of every schema. `create` gives the URL of an empty database for one."""
    password = _HASHER.hash(PASSWORD)
    done = set()
    for version in versions:
        if version.schema not in done:
            done.add(version.schema)
            await version.load(create(version.schema), data, password)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory of a run's own."""
    return tempfile.TemporaryDirectory(prefix="outgrow-benchmark-")
