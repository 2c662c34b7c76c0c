"""What an Envoy knows of its work: figures for the dashboard, and everything for a Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from outgrow.engines.envoy import admin as envoy_admin

State = Literal["healthy", "unhealthy", "ejected", "draining"]

REQUESTS = "http.balancer.downstream_rq_total"
ERRORS = "http.balancer.downstream_rq_5xx"
UNDER_WAY = "http.balancer.downstream_rq_active"
CONNECTIONS = ("http.balancer.downstream_cx_active", "tcp.balancer.downstream_cx_active")


class ServerFigures(NamedTuple):
    """One server as the balancer sees it. Counts since it knows the server; `weight` of its algorithm.

    unhealthy: it fails its checks; ejected: its connections failed, it is tried again in a moment.
    """

    name: str
    address: str
    pool: str
    state: State
    requests: int
    failed: int
    under_way: int
    connections: int
    weight: int


class Figures(NamedTuple):
    """One balancer. Counts since its start; latencies in seconds over the last some seconds, None without
    any request in them."""

    requests: int
    errors: int
    under_way: int
    connections: int
    p50_s: float | None
    p99_s: float | None
    servers: tuple[ServerFigures, ...]


def figures(admin: Path) -> Figures:
    """Those of now, from the admin socket. Raises OSError when the balancer does not answer."""
    told = envoy_admin.figures(admin, r"^(http|tcp)\.balancer\.downstream_")
    p50_s, p99_s = _latencies(admin)
    return Figures(
        requests=int(told.get(REQUESTS, 0)),
        errors=int(told.get(ERRORS, 0)),
        under_way=int(told.get(UNDER_WAY, 0)),
        connections=sum(int(told.get(name, 0)) for name in CONNECTIONS),
        p50_s=p50_s,
        p99_s=p99_s,
        servers=_servers(admin),
    )


def exposition(admin: Path) -> bytes:
    """All its metrics that were ever used, as Prometheus reads them. Raises OSError like `figures`."""
    return envoy_admin.ask(admin, "/stats/prometheus?usedonly")


class _Stat(msgspec.Struct):
    name: str
    value: str | int = 0


class _Socket(msgspec.Struct):
    address: str
    port_value: int


class _Address(msgspec.Struct):
    socket_address: _Socket | None = None


class _Health(msgspec.Struct):
    eds_health_status: str = "HEALTHY"
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False


class _Host(msgspec.Struct):
    address: _Address
    stats: list[_Stat]
    health_status: _Health
    weight: int = 1
    hostname: str = ""


class _Cluster(msgspec.Struct):
    name: str
    host_statuses: list[_Host] = []


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster]


def _servers(admin: Path) -> tuple[ServerFigures, ...]:
    told = msgspec.json.decode(envoy_admin.ask(admin, "/clusters?format=json"), type=_Clusters)
    found = [
        _server(cluster.name, host, host.address.socket_address)
        for cluster in told.cluster_statuses
        for host in cluster.host_statuses
        if host.address.socket_address is not None
    ]
    return tuple(sorted(found, key=lambda each: (each.pool, len(each.name), each.name)))


def _server(pool: str, host: _Host, address: _Socket) -> ServerFigures:
    counts = {stat.name: int(stat.value) for stat in host.stats}
    return ServerFigures(
        name=host.hostname,
        address=f"{address.address}:{address.port_value}",
        pool=pool,
        state=_state(host.health_status),
        requests=counts["rq_total"],
        failed=counts["rq_error"],
        under_way=counts["rq_active"],
        connections=counts["cx_active"],
        weight=host.weight,
    )


def _state(health: _Health) -> State:
    if health.eds_health_status == "DRAINING":
        return "draining"
    if health.failed_active_health_check:
        return "unhealthy"
    return "ejected" if health.failed_outlier_check else "healthy"


class _Value(msgspec.Struct):
    interval: float | None = None


class _Quantiles(msgspec.Struct):
    name: str
    values: list[_Value]


class _Histograms(msgspec.Struct):
    supported_quantiles: list[float] = []
    computed_quantiles: list[_Quantiles] = []


class _Entry(msgspec.Struct):
    histograms: _Histograms = msgspec.field(default_factory=_Histograms)


class _Stats(msgspec.Struct):
    stats: list[_Entry]


def _latencies(admin: Path) -> tuple[float | None, float | None]:
    body = envoy_admin.ask(admin, r"/stats?format=json&filter=^http\.balancer\.downstream_rq_time$")
    for entry in msgspec.json.decode(body, type=_Stats).stats:
        quantiles = entry.histograms.supported_quantiles
        for each in entry.histograms.computed_quantiles:
            found = {q: v.interval for q, v in zip(quantiles, each.values, strict=True)}
            return _seconds(found.get(50.0)), _seconds(found.get(99.0))
    return None, None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
