"""The last minute by route and by statement, from two looks at the counters; made while a page is open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from outgrow.advisor.measures import Distribution, Figures, Labels
from outgrow.dashboard.snapshot import Query, Route

QUERIES_SHOWN = 30
ROUTES_SHOWN = 100


class Minute(NamedTuple):
    """The counters of one process: now, before, and the seconds in between."""

    now: Figures
    before: Figures
    seconds: float


def routes(minutes: Iterable[Minute]) -> list[Route]:
    """Every route that was asked for, the busiest first."""
    took: dict[str, Distribution] = {}
    rates: dict[str, float] = {}
    failed: dict[str, float] = {}
    methods: dict[str, set[str]] = {}
    for minute in minutes:
        for (route,), new in distributions(minute, "outgrow_http_request_seconds"):
            took[route] = took.get(route, Distribution()).plus(new)
            rates[route] = rates.get(route, 0.0) + new.count / minute.seconds
        for (method, route, status), count in counts(minute, "outgrow_http_requests_total"):
            methods.setdefault(route, set()).add(method)
            if status >= "500":
                failed[route] = failed.get(route, 0.0) + count
    found = [
        Route(
            route=route,
            methods=sorted(methods.get(route, ())),
            rate=rates[route],
            p50=_ms(each.quantile(0.5)),
            p95=_ms(each.quantile(0.95)),
            p99=_ms(each.quantile(0.99)),
            error_share=min(1.0, failed.get(route, 0.0) / each.count),
        )
        for route, each in took.items()
    ]
    return sorted(found, key=lambda route: -route.rate)[:ROUTES_SHOWN]


def queries(minutes: Iterable[Minute]) -> list[Query]:
    """The statements that took the most time in all, those first."""
    took: dict[tuple[str, str], Distribution] = {}
    rates: dict[tuple[str, str], float] = {}
    busy: dict[tuple[str, str], float] = {}
    for minute in minutes:
        for (node, label), new in distributions(minute, "outgrow_db_query_seconds"):
            key = (node, label)
            took[key] = took.get(key, Distribution()).plus(new)
            rates[key] = rates.get(key, 0.0) + new.count / minute.seconds
            busy[key] = busy.get(key, 0.0) + new.sum / minute.seconds
    found = [
        Query(
            node=node,
            label=label,
            rate=rates[node, label],
            mean=each.sum / each.count * 1000,
            p99=_ms(each.quantile(0.99)),
            busy=busy[node, label],
        )
        for (node, label), each in took.items()
    ]
    return sorted(found, key=lambda query: -query.busy)[:QUERIES_SHOWN]


def distributions(minute: Minute, name: str) -> Iterator[tuple[Labels, Distribution]]:
    """What is new in each series of a histogram."""
    family = minute.now.get(name)
    if family is None:
        return
    earlier = minute.before.get(name)
    before = dict(earlier.series) if earlier is not None else {}
    for labels, figures in family.series:
        old = before.get(labels)
        if old == figures:
            continue
        new = Distribution(family.bounds, figures[:-1], figures[-1])
        if old is not None:
            new = new.since(Distribution(family.bounds, old[:-1], old[-1]))
        if new.count:
            yield labels, new


def counts(minute: Minute, name: str) -> Iterator[tuple[Labels, float]]:
    """By how much each series of a counter has grown, where it has."""
    family, earlier = minute.now.get(name), minute.before.get(name)
    if family is None:
        return
    before = dict(earlier.series) if earlier is not None else {}
    for labels, (count,) in family.series:
        old = before.get(labels, [0.0])[0]
        new = count - old if count >= old else count
        if new:
            yield labels, new


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
