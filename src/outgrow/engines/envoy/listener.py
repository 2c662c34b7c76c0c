"""What the balancer does with a connection before it chooses a server: Envoy's listener (LDS).

TLS ─► layer 4: bytes to a server
    └► layer 7: HTTP ─► rate of this client ─► size of the body ─► route ─► server
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from outgrow.engines.envoy import routes as envoy_routes
from outgrow.engines.envoy.certificate import CERTIFICATE, CURRENT, KEY
from outgrow.engines.envoy.changes import ROUTES
from outgrow.engines.envoy.clusters import LATENCY, Message, from_file, seconds, socket_address, typed
from outgrow.topology.model import Balancer
from outgrow.workload import Address

NAME = "balancer"
SECRETS = "sds.json"
CLIENTS_MAX = 100_000
"""Client addresses whose rate is remembered; the least recent one is forgotten for a new one."""

HEADERS_WITHIN_S = 10.0
"""A client has to send its headers within this, so that slow ones cannot hold connections for ever."""

CONNECTION_BUFFER = 1024 * 1024
FLUSH_S = 0.1
"""How often latencies are told: small against the second within which a slow server has to be found."""

LATENCY_RECORD = {
    "server": "%UPSTREAM_HOST%",
    "status": "%RESPONSE_CODE%",
    # From the request's last byte to the answer's first: a client's slow line does not count.
    "us": "%COMMON_DURATION(US_TX_END:US_RX_BEG:us)%",
}


def listener(balancer: Balancer, address: Address) -> Message:
    """The one listener, on `address`."""
    read = _http(balancer) if balancer.layer == 7 else _tcp(balancer)
    chain: Message = {"filters": [read]}
    if balancer.tls.enabled:
        chain["transport_socket"] = _tls(balancer.layer)
    return {
        "name": NAME,
        "address": socket_address(address),
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        # A port changes its owner live by being shared for a moment. That no two fleets do so by accident
        # is the supervisor's part: it holds the port (Workload.claims).
        "enable_reuse_port": True,
        "filter_chains": [chain],
    }


def _tcp(balancer: Balancer) -> Message:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": typed(
            "extensions.filters.network.tcp_proxy.v3.TcpProxy",
            stat_prefix=NAME,
            cluster="app",
            idle_timeout=seconds(balancer.idle_timeout),
            # A server that refuses has seen nothing.
            max_connect_attempts=1 + balancer.retries,
            hash_policy=[{"source_ip": {}}],
        ),
    }


def _http(balancer: Balancer) -> Message:
    manager = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=NAME,
        codec_type="AUTO",
        rds={"route_config_name": envoy_routes.NAME, "config_source": from_file(ROUTES)},
        http_filters=[*_rate_filters(balancer), _body(balancer), _router()],
        # Without the filter that waits for a body's end: what follows an upgrade has none.
        upgrade_configs=[{"upgrade_type": "websocket", "filters": [*_rate_filters(balancer), _router()]}],
        **_timeouts(balancer),
        **_TRUST,
        **_REPLIES,
    )
    if balancer.algorithm == "least-response-time":
        manager["access_log"] = [_latencies()]
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _timeouts(balancer: Balancer) -> Message:
    return {
        "common_http_protocol_options": {
            "idle_timeout": seconds(balancer.idle_timeout),
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "stream_idle_timeout": seconds(max(balancer.idle_timeout, balancer.request_timeout)),
        "request_headers_timeout": seconds(HEADERS_WITHIN_S),
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": CONNECTION_BUFFER,
        },
    }


_TRUST: dict[str, Any] = {
    # The client is who has connected. What it says of itself in headers is overwritten (routes.py).
    "use_remote_address": True,
    "skip_xff_append": True,
    "internal_address_config": {},
    "generate_request_id": True,
    "preserve_external_request_id": False,
    "normalize_path": True,
    "merge_slashes": True,
    "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    "strip_trailing_host_dot": True,
}

_REPLIES: dict[str, Any] = {
    "server_header_transformation": "PASS_THROUGH",
    # What we answer ourselves looks like the application's own errors, and tells nothing of what is behind.
    "local_reply_config": {
        "body_format": {
            "json_format": {"type": "about:blank", "status": "%RESPONSE_CODE%"},
            "content_type": "application/problem+json",
        },
        "mappers": [
            {
                "filter": {
                    "status_code_filter": {
                        "comparison": {"op": "EQ", "value": {"default_value": 503, "runtime_key": "none"}}
                    }
                },
                "headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
            }
        ],
    },
}


def _rate_filters(balancer: Balancer) -> list[Message]:
    rate, burst = balancer.limits.rate, balancer.limits.burst
    return [] if rate is None else [_rate(rate, 2 * rate if burst is None else burst)]


def _router() -> Message:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": typed("extensions.filters.http.router.v3.Router", suppress_envoy_headers=True),
    }


def _rate(rate: int, burst: int) -> Message:
    """A bucket of tokens for each client address, made when it comes first."""
    everybody = {
        "runtime_key": "rate",
        "default_value": {"numerator": 100, "denominator": "HUNDRED"},
    }
    client = {"key": "masked_remote_address"}
    per_fill, every_s = _fill(rate)
    bucket = {"max_tokens": burst, "tokens_per_fill": per_fill, "fill_interval": seconds(every_s)}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": typed(
            "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix="clients",
            filter_enabled=everybody,
            filter_enforced=everybody,
            rate_limits=[
                {"actions": [{"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}]}
            ],
            # An entry without a value stands for every value, each with a bucket of its own.
            descriptors=[{"entries": [client], "token_bucket": bucket}],
            max_dynamic_descriptors=CLIENTS_MAX,
            response_headers_to_add=[
                {"header": {"key": "retry-after", "value": str(math.ceil(every_s))}},
            ],
        ),
    }


def _fill(rate: int) -> tuple[int, float]:
    """Tokens at a time and how often, no shorter than the 50 ms that Envoy allows."""
    every_s = max(0.05, 1.0 / rate)
    return max(1, round(rate * every_s)), every_s


def _body(balancer: Balancer) -> Message:
    """Counts a body that does not say its length, and holds it back until it is whole."""
    most = round(balancer.limits.body_mb * envoy_routes.MEGABYTE)
    counting = typed("extensions.filters.http.buffer.v3.Buffer", max_request_bytes=most)
    header = {
        "name": "content-length",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": "content-length",
        },
    }
    skip = {
        "action": {
            "name": "skip",
            "typed_config": typed("extensions.filters.common.matcher.action.v3.SkipFilter"),
        }
    }
    says_length = {"single_predicate": {"input": header, "value_match": {"safe_regex": _DIGITS}}}
    return {
        "name": "body",
        "typed_config": typed(
            "extensions.common.matching.v3.ExtensionWithMatcher",
            extension_config={"name": "envoy.filters.http.buffer", "typed_config": counting},
            xds_matcher={"matcher_list": {"matchers": [{"predicate": says_length, "on_match": skip}]}},
        ),
    }


# The matching API still asks for the name of the one engine there is.
_DIGITS = {"google_re2": {}, "regex": r"\d+"}


def _latencies() -> Message:
    """Tells our own process over a Unix socket how long each answer took. What it misses is dropped."""
    return {
        "name": "envoy.access_loggers.fluentd",
        "typed_config": typed(
            "extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig",
            cluster=LATENCY,
            tag="latency",
            stat_prefix="latency",
            buffer_flush_interval=seconds(FLUSH_S),
            buffer_size_bytes=65_536,
            record=LATENCY_RECORD,
            retry_options={"backoff_options": {"base_interval": "0.1s", "max_interval": "1s"}},
        ),
    }


def _tls(layer: int) -> Message:
    common: Message = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": NAME, "sds_config": from_file(SECRETS)}],
    }
    if layer == 7:
        common["alpn_protocols"] = ["h2", "http/1.1"]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common
        ),
    }


def secret(folder: Path) -> Message:
    """The certificate that the listener names; read again when the link to its folder is replaced."""
    return {
        "name": NAME,
        "tls_certificate": {
            "certificate_chain": {"filename": str(folder / CURRENT / CERTIFICATE)},
            "private_key": {"filename": str(folder / CURRENT / KEY)},
            "watched_directory": {"path": str(folder)},
        },
    }
