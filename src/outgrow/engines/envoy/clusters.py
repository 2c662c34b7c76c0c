"""Envoy's view of the servers: a cluster for each pool (CDS), and its endpoints (EDS).

How a server is chosen, when it counts as healthy, and how much one pool may have under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from outgrow.engines.balancer import Server
from outgrow.topology.model import Balancer, Health
from outgrow.topology.rules import POOL
from outgrow.workload import Address

LATENCY = "outgrow-latency"
"""The cluster that stands for our own process, which measures latencies (run.py)."""

LATENCY_SOCKET = "latency.sock"
ENDPOINTS = "eds-"
WEIGHTED = "weighted-"
"""The same endpoints with the weights that run.py derives from latencies. Then comes the pool's name:
Envoy reads one cluster's endpoints from one file."""

FULL_WEIGHT = 1000
"""Of a server at full speed: weights are whole numbers, and a slow one has to get far less."""

UPSTREAM_IDLE_S = 60.0
"""Less than the 75 s for which the application's server keeps idle connections: so we close first."""

RETRIES_MIN = 20
"""The budget allows so many at once even when little is under way: one server's share may break at once."""

CHECKS = {
    "usual": {"interval": 10.0, "timeout": 5.0, "failures": 3, "successes": 2},
    "fast": {"interval": 0.5, "timeout": 0.5, "failures": 2, "successes": 1},
}

Message = dict[str, Any]
"""A protobuf message in its JSON form."""


def seconds(value: float) -> str:
    """A duration as protobuf's JSON has it."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def resources(kind: str, messages: Iterable[Message]) -> Message:
    """An xDS answer with resources of one kind, such as `config.cluster.v3.Cluster`."""
    return {"resources": [{"@type": f"type.googleapis.com/envoy.{kind}", **each} for each in messages]}


def typed(kind: str, **fields: Any) -> Message:
    """A message inside an Any."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def socket_address(address: Address) -> Message:
    """Of a TCP address."""
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def from_file(path: str) -> Message:
    """A configuration source: a file beside the bootstrap, read again whenever it is replaced."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": path, "watched_directory": {"path": "."}},
    }


def clusters(balancer: Balancer, source: str) -> list[Message]:
    """A cluster for each pool. Connections to the servers come from the host `source`."""
    return [_pool(balancer, name, source) for name in (POOL, *balancer.pools)]


def _pool(balancer: Balancer, name: str, source: str) -> Message:
    measured = balancer.algorithm == "least-response-time"
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": from_file(f"{WEIGHTED if measured else ENDPOINTS}{name}.json")},
        "connect_timeout": seconds(balancer.connect_timeout),
        **_choice(balancer),
        "common_lb_config": {
            "healthy_panic_threshold": {"value": balancer.health.panic * 100},
            "update_merge_window": "0s",  # a server that comes back serves at once, not a second later
        },
        # A removed server gets nothing more, though its health check still passes.
        "ignore_health_on_host_removal": True,
        "health_checks": [_check(balancer.health, balancer.layer)],
        "outlier_detection": _OUTLIERS,
        "circuit_breakers": _breakers(balancer),
        # The servers believe the client's address from this host alone.
        "upstream_bind_config": {"source_address": {"address": source, "port_value": 0}},
        "typed_extension_protocol_options": _http(),
    }


def _choice(balancer: Balancer) -> Message:
    warm_up = balancer.health.slow_start
    slow_start = {} if warm_up is None else {"slow_start_config": {"slow_start_window": seconds(warm_up)}}
    match balancer.algorithm:
        case "ip-hash":
            return _policy("maglev.v3.Maglev")
        case "least-connections":
            # All are looked at: of two drawn at random, the better may still be a busy one.
            return _policy("least_request.v3.LeastRequest", selection_method="FULL_SCAN", **slow_start)
        case "least-response-time":
            return _policy("least_request.v3.LeastRequest", **slow_start)
    return _policy("round_robin.v3.RoundRobin", **slow_start)


def _policy(kind: str, **fields: Any) -> Message:
    name = f"envoy.load_balancing_policies.{kind.partition('.')[0]}"
    config = {"name": name, "typed_config": typed(f"extensions.load_balancing_policies.{kind}", **fields)}
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": config}]}}


def _check(health: Health, layer: int) -> Message:
    usual = CHECKS[health.profile]
    interval = seconds(usual["interval"] if health.interval is None else health.interval)
    check: Message = {
        "interval": interval,
        "no_traffic_interval": interval,
        "timeout": seconds(usual["timeout"] if health.timeout is None else health.timeout),
        "unhealthy_threshold": int(usual["failures"] if health.failures is None else health.failures),
        "healthy_threshold": int(usual["successes"] if health.successes is None else health.successes),
        "http_health_check": {
            "path": health.path or ("/health/deep" if health.check == "deep" else "/health"),
            "host": "localhost",
            "expected_statuses": [{"start": 200, "end": 300}],
            # Else one wrong answer would count as all the failures that it takes.
            "retriable_statuses": [{"start": 300, "end": 600}],
        },
    }
    return check


_OUTLIERS = {
    # A connection that fails says enough. What a server answers says little: the fault may be shared.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 1,
    "enforcing_consecutive_local_origin_failure": 100,
    "enforcing_local_origin_success_rate": 0,
    "enforcing_success_rate": 0,
    "enforcing_consecutive_5xx": 0,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "interval": "0.5s",
    "base_ejection_time": "1s",
    "max_ejection_time": "10s",
    "max_ejection_percent": 50,
}


def _breakers(balancer: Balancer) -> Message:
    most = balancer.limits.under_way
    return {
        "thresholds": [
            {
                "max_connections": most,
                "max_pending_requests": most,
                "max_requests": most,
                "retry_budget": {
                    "budget_percent": {"value": balancer.retry_share * 100},
                    "min_retry_concurrency": RETRIES_MIN,
                },
            }
        ]
    }


def _http() -> Message:
    options = typed(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": seconds(UPSTREAM_IDLE_S)},
        explicit_http_config={"http_protocol_options": {}},
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}


def latency() -> Message:
    """Our own process, which is there from the start: the listener may only name what is."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": LATENCY_SOCKET}}}}
    return {
        "name": LATENCY,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": LATENCY, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def endpoints(balancer: Balancer, servers: Sequence[Server]) -> dict[str, Message]:
    """The servers of each pool, also of one that has none yet."""
    return {
        pool: {
            "cluster_name": pool,
            "endpoints": [
                {"lb_endpoints": [_endpoint(each, balancer) for each in servers if each.pool == pool]}
            ],
        }
        for pool in (POOL, *balancer.pools)
    }


def _weight(server: Server, balancer: Balancer) -> int:
    """The one that a person has given wins. The processes of one server, NAME.2 and so on, share its."""
    if balancer.algorithm != "weighted-round-robin":
        return 1
    return balancer.weights.get(server.name.partition(".")[0], server.weight)


def _endpoint(server: Server, balancer: Balancer) -> Message:
    return {
        "endpoint": {"address": socket_address(server.address), "hostname": server.name},
        # Of a draining one its connections live on, so that what is under way on them can end.
        "health_status": "DRAINING" if server.draining else "UNKNOWN",
        "load_balancing_weight": _weight(server, balancer),
    }
