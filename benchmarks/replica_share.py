"""Which share of the example's reads its replicas serve, while each applies what it gets half a second late.

The load is the example's own (examples/conduit/load.toml): 200 users, of 100 requests 10 write, and most
writes are read back at once. `session` against `pinned(5s)`, the usual way to read one's own writes: whoever
has written reads from the primary for five seconds. The cache is off, so every read is one of the database.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop
from argon2 import PasswordHasher

from benchmarks import report
from benchmarks.conduit import load as conduit
from benchmarks.data import FULL, PASSWORD, TINY, make
from benchmarks.servers import Application
from benchmarks.versions import EXAMPLE, PROBE, endpoints_document
from outgrow import endpoints
from outgrow.load import generator
from outgrow.load.parse import parse_file
from outgrow.load.report import Report
from outgrow.load.target import resolve
from tests.support.ports import free_port
from tests.support.replicas import Replicated, replicated

LEVELS = ("session", "pinned(5s)")
DELAY_S = 0.5
RATE = 100.0
SECONDS = 60.0
QUICK_S = 8.0
AT_LEAST = 90
"""Percent."""
_READS = re.compile(r'^outgrow_db_reads_total\{(?=.*reason="([^"]+)").*\} (\d+)', re.MULTILINE)


class Share(NamedTuple):
    """Of one level: how many reads went where and why, and what the load has seen."""

    level: str
    reads: Counter[str]
    load: Report

    @property
    def of_replicas(self) -> float:
        """Those of reason "fresh" were served by a replica. What asked for the primary itself is left out."""
        return self.reads["fresh"] / max(self.reads.total() - self.reads["strong"], 1)


def run(*, quick: bool) -> str:
    """The table, as Markdown."""
    shares = []
    with replicated(2, Replicated) as cluster:
        url = cluster.primary.create_database()
        hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        asyncio.run(conduit.into(url, EXAMPLE / "migrations", make(TINY if quick else FULL), hashed))
        cluster.settle()
        cluster.delay(DELAY_S)
        for level in LEVELS:
            shares.append(_share(cluster, url, level, QUICK_S if quick else SECONDS))
            print(f"  {level}: {dict(shares[-1].reads)}", flush=True)
    return _as_table(shares)


def _share(cluster: Replicated, url: str, level: str, seconds: float) -> Share:
    scenario = msgspec.structs.replace(parse_file(EXAMPLE / "load.toml"), warmup=2.0).steady(RATE, seconds)
    with tempfile.TemporaryDirectory(prefix="outgrow-benchmark-") as folder:
        port = free_port()
        environment = {
            "OUTGROW_APP": "conduit.app:app",
            "OUTGROW_PORT": str(port),
            "OUTGROW_ENDPOINTS": str(_document(cluster, url, level, Path(folder))),
            "OUTGROW_WORKER": "1",
        }
        with Application(["-m", "outgrow.runtime.serve"], environment, EXAMPLE, port, PROBE):
            before = _reads(port)
            load = uvloop.run(generator.run(scenario, resolve(f"http://127.0.0.1:{port}")))
            return Share(level, _reads(port) - before, load)


def _document(cluster: Replicated, url: str, level: str, folder: Path) -> Path:
    """That of one node, with the replicas beside it."""
    path = endpoints_document(url, folder, cache=False, access_log=False)
    document = endpoints.read(path)
    nodes = tuple(
        msgspec.structs.replace(node, url=endpoints.split_password(node.url)[0])
        for node in cluster.nodes(url)
    )
    database = msgspec.structs.replace(
        document.database, shards=(endpoints.Shard("0", nodes),), replication="async"
    )
    endpoints.write(path, msgspec.structs.replace(document, consistency=level, database=database))
    secrets = endpoints.read_secrets(folder / "secrets.json")
    passwords = {"*": next(iter(secrets.passwords.values()))}
    endpoints.write(folder / "secrets.json", msgspec.structs.replace(secrets, passwords=passwords))
    return path


def _reads(port: int) -> Counter[str]:
    """Reads of the database so far, by why they went where they went."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for reason, count in _READS.findall(text):
        found[reason] += int(count)
    return found


def _as_table(shares: list[Share]) -> str:
    reasons = sorted({reason for each in shares for reason in each.reads} - {"fresh"})
    head = ["level", "requests", "stale answers", "errors", "reads", "at replicas", *reasons]
    rows = [
        [
            f"`{each.level}`",
            f"{each.load.answered:,}",
            f"{each.load.violations:,}",
            f"{each.load.failed:,}",
            f"{each.reads.total():,}",
            f"{100 * each.of_replicas:.1f}%",
            *(f"{100 * each.reads[reason] / max(each.reads.total(), 1):.1f}%" for reason in reasons),
        ]
        for each in shares
    ]
    what, share = "share of reads at replicas with `session`", 100 * shares[0].of_replicas
    verdict = report.verdict(what, share, AT_LEAST, at_least=True, unit="%")
    return f"{report.table(head, rows)}\n\n{verdict}"
