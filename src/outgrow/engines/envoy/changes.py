"""Pools and routes reach Envoy in an order in which no request finds its pool missing.

    pools.json  ─► cds.json   first with what is new, beside what goes; at the end exactly as wanted
    routes.json ─► rds.json   as soon as every pool in it is ready

Left alone, Envoy would take the routes at once, and a new pool after it has asked its servers.
"""

from __future__ import annotations

import json
from http.client import HTTPException
from pathlib import Path

from outgrow.engines.envoy import admin as envoy_admin
from outgrow.engines.envoy.clusters import Message

POOLS, CLUSTERS = "pools.json", "cds.json"
WANTED, ROUTES = "routes.json", "rds.json"


def begin(folder: Path) -> None:
    """Before Envoy starts everything is as wanted. Raises OSError."""
    replace(folder / CLUSTERS, (folder / POOLS).read_text())
    replace(folder / ROUTES, (folder / WANTED).read_text())


def turn(folder: Path, admin: Path) -> None:
    """One step towards what is wanted, if there is one to take. Raises OSError, ValueError."""
    pools, routes = (folder / POOLS).read_text(), (folder / WANTED).read_text()
    before, current = (folder / CLUSTERS).read_text(), (folder / ROUTES).read_text()
    if (pools, routes) == (before, current):
        return
    json.loads(routes)  # what is no JSON is taken no further
    wanted: list[Message] = json.loads(pools)["resources"]
    if not all((folder / _endpoints(pool)).exists() for pool in wanted):
        return  # Envoy would refuse the pool and never ask again; the weights are written in a moment
    if routes == current:
        replace(folder / CLUSTERS, pools)
        return
    names = {pool["name"] for pool in wanted}
    leaving = [pool for pool in json.loads(before)["resources"] if pool["name"] not in names]
    both = json.dumps({"resources": [*wanted, *leaving]}) if leaving else pools
    if both != before:
        replace(folder / CLUSTERS, both)
    if names <= _ready(admin):
        replace(folder / ROUTES, routes)


def _endpoints(pool: Message) -> str:
    path: str = pool["eds_cluster_config"]["eds_config"]["path_config_source"]["path"]
    return path


def _ready(admin: Path) -> set[str]:
    """The pools that Envoy can send requests to."""
    try:
        told = json.loads(envoy_admin.ask(admin, "/clusters?format=json"))
    except (OSError, HTTPException):
        return set()
    return {cluster["name"] for cluster in told["cluster_statuses"]}


def replace(path: Path, text: str) -> None:
    """By a rename, which is what Envoy looks for."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
