"""Which request goes to which pool, and how often it may be tried again: Envoy's routes (RDS)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from outgrow.engines.envoy.clusters import Message, seconds
from outgrow.topology.model import Balancer, Route

NAME = "routes"
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing: they may be repeated even when a server may have seen them."""

UNSEEN = "connect-failure,refused-stream"
"""Failures after which surely no server has begun with the request."""

LOST = f"{UNSEEN},reset,gateway-error"
"""These, and a connection that breaks, an answer that does not come, and 502 to 504."""

FORGED = (
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-envoy-external-address",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-attempt-count",
    "x-envoy-original-path",
)
"""What clients could claim and servers might believe."""

MEGABYTE = 1_000_000


def routes(balancer: Balancer) -> Message:
    """The whole table: what is too large, then each route in its order, then the pool of all others."""
    ordered = [each for route in (*balancer.routes, Route()) for each in _pair(balancer, route)]
    return {
        "name": NAME,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_too_large(balancer), *ordered]}],
        "request_headers_to_remove": list(FORGED),
        # Overwritten and not appended to: a client's own would stand before ours. Envoy's way to append
        # writes the machine's address instead of a client's on loopback.
        "request_headers_to_add": [
            {
                "header": {
                    "key": "x-forwarded-for",
                    "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                },
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _too_large(balancer: Balancer) -> Message:
    """A body that says its length. One that does not is counted by the buffer filter of the listener."""
    most = round(balancer.limits.body_mb * MEGABYTE)
    length = {"name": "content-length", "range_match": {"start": most + 1, "end": 2**62}}
    return {"match": {"prefix": "/", "headers": [length]}, "direct_response": {"status": 413}}


def _pair(balancer: Balancer, route: Route) -> Iterator[Message]:
    """The safe methods, which are tried again, and the others."""
    wanted = route.methods
    safe = [method for method in SAFE if not wanted or method in wanted]
    if safe:
        yield _route(balancer, route, safe, safe=True)
    others = [method for method in wanted if method not in SAFE]
    if others or not wanted:
        yield _route(balancer, route, others, safe=False)


def _route(balancer: Balancer, route: Route, methods: Sequence[str], *, safe: bool) -> Message:
    attempt_s = balancer.attempt_timeout if safe else balancer.request_timeout
    return {
        "match": _match(route, methods),
        "route": {
            "cluster": route.pool,
            # The attempts have a time for their answer to begin; how long it then streams is its own affair.
            "timeout": "0s",
            "idle_timeout": seconds(max(balancer.idle_timeout, balancer.request_timeout)),
            "retry_policy": {
                "retry_on": LOST if safe else UNSEEN,
                "num_retries": balancer.retries,
                "per_try_timeout": seconds(attempt_s),
                "retry_host_predicate": [_ANOTHER],
                "host_selection_retry_max_attempts": 5,
            },
            "hash_policy": [{"connection_properties": {"source_ip": True}}],
        },
    }


_ANOTHER = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


def _match(route: Route, methods: Sequence[str]) -> Message:
    headers: list[Message] = []
    if methods:
        headers.append(_regex(":method", "|".join(methods)))
    if route.host is not None:
        anything = r"[^.:]+(\.[^.:]+)*\." if route.host.startswith("*.") else ""
        name = re.escape(route.host.removeprefix("*."))
        headers.append(_regex(":authority", rf"(?i){anything}{name}(:\d+)?"))
    if route.header is not None:
        name, _, value = route.header.partition(": ")
        headers.append({"name": name, **({"string_match": {"exact": value}} if value else _PRESENT)})
    return {**_path(route.prefix), "headers": headers}


_PRESENT = {"present_match": True}


def _regex(header: str, pattern: str) -> Message:
    return {"name": header, "string_match": {"safe_regex": {"regex": pattern}}}


def _path(prefix: str) -> Message:
    """Whole segments, unless the prefix ends with one."""
    return {"prefix": prefix} if prefix.endswith("/") else {"path_separated_prefix": prefix}
