"""What one process of the application tells of its requests, at its own address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import msgspec

ANSWER_WITHIN_S = 0.7
REQUESTS = "outgrow_http_requests_total"
TIMES = "outgrow_http_request_seconds"
IN_FLIGHT = "outgrow_http_requests_in_flight"


class _Family(msgspec.Struct):
    """One metric as a process tells it in JSON (runtime/telemetry/metrics.py)."""

    labels: tuple[str, ...]
    bounds: tuple[float, ...]
    series: list[tuple[tuple[str, ...], list[float]]]


class Figures(msgspec.Struct, frozen=True):
    """Requests under way, and since its start: answered, with a status from 500 on, and by time.

    `times` counts those of each bucket alone; `bounds` are the upper ends of all but the last, in seconds.
    """

    in_flight: float = 0.0
    requests: float = 0.0
    failed: float = 0.0
    bounds: tuple[float, ...] = ()
    times: tuple[float, ...] = ()

    def since(self, before: Figures) -> Figures:
        """What is new; everything, if the process has begun anew."""
        if self.requests < before.requests or len(before.times) != len(self.times):
            return self
        times = tuple(now - then for now, then in zip(self.times, before.times, strict=True))
        return Figures(
            self.in_flight,
            self.requests - before.requests,
            self.failed - before.failed,
            self.bounds,
            times,
        )

    def quantile(self, share: float) -> float | None:
        """Seconds within which so much of the requests were answered; None without one.

        Linear within a bucket. What took longer than the last bound counts as just that.
        """
        wanted, below, seen = share * sum(self.times), 0.0, 0.0
        if not wanted:
            return None
        for bound, count in zip(self.bounds, self.times, strict=False):
            if seen + count >= wanted:
                return below + (bound - below) * (wanted - seen) / count
            below, seen = bound, seen + count
        return below


def together(figures: Iterable[Figures]) -> Figures:
    """Several processes as one."""
    known = list(figures)
    if not known:
        return Figures()
    told = [each.times for each in known if each.times]
    return Figures(
        sum(each.in_flight for each in known),
        sum(each.requests for each in known),
        sum(each.failed for each in known),
        next((each.bounds for each in known if each.times), ()),
        tuple(map(sum, zip(*told, strict=True))),
    )


async def look(host: str, port: int) -> Figures | None:
    """The figures now; None when it tells none: no middleware, metrics off, or no answer in time."""
    with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return read(await _get(host, port, "/metrics"))
    return None


def read(body: bytes) -> Figures:
    """From the JSON of /metrics. Raises msgspec.DecodeError when it is none."""
    families = msgspec.json.decode(body, type=dict[str, _Family])
    requests, times, now = families.get(REQUESTS), families.get(TIMES), families.get(IN_FLIGHT)
    place = requests.labels.index("status") if requests is not None else 0
    answered = [(labels[place], values[0]) for labels, values in requests.series] if requests else []
    rows = [values[:-1] for _, values in times.series] if times is not None else []
    return Figures(
        in_flight=sum(values[0] for _, values in now.series) if now is not None else 0.0,
        requests=sum(count for _, count in answered),
        failed=sum(count for status, count in answered if status.startswith("5")),
        bounds=times.bounds if times is not None else (),
        times=tuple(map(sum, zip(*rows, strict=True))),
    )


async def _get(host: str, port: int, path: str) -> bytes:
    """The body of a good answer. Raises OSError, or ValueError for any other."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        wanted = f"Host: {host}\r\nAccept: application/json\r\nConnection: close"
        writer.write(f"GET {path} HTTP/1.1\r\n{wanted}\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise ValueError(head[:100])
    return body
