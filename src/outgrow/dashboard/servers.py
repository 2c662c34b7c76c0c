"""Each application server, its processes together and as the balancer sees it; what becomes of it. Pure.

A node is a process: "app-1" and "app-1.2" are the two of the server "app-1".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from outgrow.advisor.measures import Tally
from outgrow.dashboard.events import Events
from outgrow.dashboard.snapshot import Balanced, Node, Server

STATES = {
    "done": 0,
    "ready": 1,
    "waiting": 2,
    "starting": 2,
    "draining": 3,
    "stopping": 3,
    "ejected": 4,
    "unhealthy": 5,
    "restarting": 5,
    "stopped": 5,
    "failed": 6,
}
"""For the history, in which everything is a number: the worse, the higher."""

_SAYS = {
    "ejected": ("ejected", "is ejected by the balancer: its connections fail"),
    "unhealthy": ("out", "is out: it fails the balancer's health checks"),
    "draining": ("draining", "drains: it gets no new request"),
}


def name_of(node: str) -> str:
    """The server on which a process of the application runs."""
    return node.partition(".")[0]


def servers(
    nodes: Sequence[Node],
    tallies: Mapping[str, Tally],
    under_way: Mapping[str, float],
    balanced: Mapping[str, Balanced],
    *,
    balancers_answer: bool,
) -> list[Server]:
    """In the order of the fleet. `tallies` and `under_way` are by process, `balanced` is by server."""
    by_server: dict[str, list[Node]] = {}
    for node in nodes:
        if node.tier == "application":
            by_server.setdefault(name_of(node.name), []).append(node)
    sums = {
        name: reduce(Tally.plus, (tallies[node.name] for node in each if node.name in tallies), Tally())
        for name, each in by_server.items()
    }
    whole = sum(tally.rate for tally in sums.values())
    return [
        _server(name, each, sums[name], whole, under_way, balanced.get(name), balancers_answer)
        for name, each in sorted(by_server.items(), key=lambda item: (len(item[0]), item[0]))
    ]


def _server(
    name: str,
    nodes: Sequence[Node],
    tally: Tally,
    whole: float,
    under_way: Mapping[str, float],
    balanced: Balanced | None,
    balancers_answer: bool,
) -> Server:
    cpus = [node.cpu for node in nodes if node.cpu is not None]
    sizes = [node.memory for node in nodes if node.memory is not None]
    asked = [under_way[node.name] for node in nodes if node.name in under_way]
    worst = max(nodes, key=lambda node: STATES.get(node.state, 2))
    return Server(
        name=name,
        state=_state(worst.state, balanced, balancers_answer),
        text=worst.text,
        address=nodes[0].address,
        processes=[node.name for node in nodes],
        pid=nodes[0].pid,
        since=max(node.since for node in nodes),
        restarts=sum(node.restarts for node in nodes),
        share=tally.rate / whole if whole and tally.seconds else None,
        rate=tally.rate if tally.seconds else None,
        p50=_ms(tally.requests.quantile(0.5)),
        p95=_ms(tally.requests.quantile(0.95)),
        p99=_ms(tally.requests.quantile(0.99)),
        errors=tally.errors if tally.seconds else None,
        in_flight=sum(asked) if asked else None,
        cpu=sum(cpus) if cpus else None,
        memory=sum(sizes) if sizes else None,
        balanced=balanced,
    )


def _state(state: str, balanced: Balanced | None, balancers_answer: bool) -> str:
    """What the supervisor says, and for a process that is ready what the balancer makes of it."""
    if state != "ready" or not balancers_answer:
        return state
    if balanced is None:  # it runs, and gets nothing: not yet, or not any more
        return "draining"
    return state if balanced.state == "healthy" else balanced.state


def series(found: Sequence[Server]) -> dict[str, float | None]:
    """For the history, by server; of a single one only its state, since the rest is the whole's."""
    figures: dict[str, float | None] = {
        f"state:{server.name}": float(STATES.get(server.state, 2)) for server in found
    }
    if len(found) > 1:
        for server in found:
            figures |= {f"rate:{server.name}": server.rate, f"p99:{server.name}": server.p99}
    return figures


class Watch:
    """Turns what balancers make of servers into events; the supervisor's part events.Watch tells."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._before: dict[str, str] = {}

    def look(self, at: float, found: Sequence[Server]) -> None:
        """What is different now."""
        before, self._before = self._before, {server.name: server.state for server in found}
        for name, balanced in ((server.name, server.balanced) for server in found):
            state, was = self._before[name], before.get(name)
            if state == was or (was is None and not before):
                continue
            if state == "draining" and was != "ready":
                continue  # it runs, and the balancer has not been told of it yet
            if state in _SAYS:
                kind, text = _SAYS[state]
                self._events.add(at, kind, text, name)
            elif state == "ready" and balanced is not None:
                self._events.add(at, "in", "gets requests", name)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
