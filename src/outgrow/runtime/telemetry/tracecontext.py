"""W3C Trace Context: the headers `traceparent` and `tracestate`, read and written.

    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
                 version  trace id (16 bytes)        parent id (8)    flags (bit 0: sampled)

https://www.w3.org/TR/trace-context/. What cannot be read proves nothing, and a new trace begins.
"""

from __future__ import annotations

import re
from random import getrandbits, randbytes
from typing import NamedTuple

from outgrow.runtime.scope import Scope

TRACEPARENT_BYTES_MAX = 256
TRACESTATE_BYTES_MAX = 512
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_TRACESTATE = re.compile(rb"[ -~\t]+")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16


class Parent(NamedTuple):
    """What the caller's header says: its trace, its span, and whether it records this trace."""

    trace_id: str
    span_id: str
    sampled: bool


def parse(header: bytes) -> Parent | None:
    """The caller's side of a trace, or None when the header is malformed."""
    if len(header) > TRACEPARENT_BYTES_MAX:
        return None
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    # Version ff is forbidden; version 00 ends after the flags, later ones may go on.
    if version == b"ff" or (version == b"00" and rest is not None) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return Parent(trace.decode(), span.decode(), int(flags, 16) & 1 == 1)


def traceparent(scope: Scope) -> str:
    """The header that makes a callee's work a part of this scope's trace."""
    return f"00-{scope.trace_id}-{scope.span_id}-{'01' if scope.sampled else '00'}"


def keep_state(scope: Scope, header: bytes) -> None:
    """Remember `tracestate` for calls that this scope makes. What is too long or unprintable is dropped."""
    if len(header) <= TRACESTATE_BYTES_MAX and _TRACESTATE.fullmatch(header):
        if scope.local is None:
            scope.local = {}
        scope.local["tracestate"] = header.decode()


def state(scope: Scope) -> str | None:
    """The caller's `tracestate`, if it sent one."""
    return None if scope.local is None else scope.local.get("tracestate")


def new_ids() -> tuple[str, str]:
    """A trace id and a span id. One draw, for the cost of one."""
    digits = randbytes(24).hex()
    return digits[:32], digits[32:]


def new_span_id() -> str:
    """A span id of its own in a trace that began elsewhere."""
    return f"{getrandbits(64):016x}"
