"""What the dashboard makes of a database with replicas: who is read from and why, and failovers as events."""

from __future__ import annotations

from pathlib import Path

import msgspec

from outgrow.advisor import measures
from outgrow.advisor.measures import Tally
from outgrow.cluster import NodeStatus
from outgrow.cluster.failovers import Failover
from outgrow.dashboard.drawing import Front, draw
from outgrow.dashboard.events import Events
from outgrow.dashboard.replicas import Watch, replicas, series
from outgrow.dashboard.snapshot import Node

METRICS = {
    "outgrow_db_reads_total": {
        "kind": "counter",
        "labels": ["node", "reason"],
        "bounds": [],
        "series": [
            [["postgres-1", "behind"], [10.0]],
            [["postgres-2", "fresh"], [80.0]],
            [["postgres-3", "fresh"], [10.0]],
        ],
    }
}


def node(name: str, role: str, **more: object) -> NodeStatus:
    base = NodeStatus(name, "service", "ready", 1, None, 0, 0.0, tier="database", role=role, timeline=2)
    return msgspec.structs.replace(base, **more)


NODES = (
    node("postgres-1", "replica", lag=4096),
    node("postgres-2", "primary", lag=None),
    node("postgres-3", "", state="starting", timeline=None),
)


def tally(seconds: float = 10.0) -> Tally:
    """What one process has read within so long."""
    figures = measures.read(msgspec.json.encode(METRICS))
    now = measures.totals(figures)
    before = msgspec.structs.replace(now, reads={})
    return measures.since(now, before, seconds)


def test_reads_are_counted_by_node_and_reason() -> None:
    primary, first, last = replicas(NODES, tally())
    assert (primary.name, primary.role, primary.reads, primary.share) == ("postgres-2", "primary", 8.0, 0.8)
    assert (first.name, first.lag, first.reasons) == ("postgres-1", 4096, {"behind": 1.0})
    assert (last.name, last.role, last.timeline) == ("postgres-3", "", None)
    both = replicas(NODES, tally().plus(tally()))
    assert both[0].reads == 16.0 and both[0].share == 0.8
    assert series([primary, first, last]) == {
        "reads:postgres-2": 8.0,
        "reads:postgres-1": 1.0,
        "lag:postgres-1": 4096.0,
        "reads:postgres-3": 1.0,
    }


def test_before_anything_was_read() -> None:
    found = replicas(NODES, Tally())
    assert [each.reads for each in found] == [None, None, None]
    assert [each.share for each in found] == [None, None, None]


def test_a_single_server_has_no_replicas() -> None:
    assert replicas([node("postgres", "")], tally()) == []


def test_the_drawing_says_roles_and_reads() -> None:
    nodes = [
        Node(each.name, "database", "service", "ready", "", 1, None, 0.0, 0, None, None) for each in NODES
    ]
    app = Node("app-1", "worker", "service", "ready", "", 1, None, 0.0, 0, None, None)
    front = Front(replicas={each.name: each for each in replicas(NODES, tally())})
    drawing = draw([*nodes, app], front, None, {"app-1": tally()}, tally(), None)
    boxes = {box.id: box for box in drawing.boxes}
    assert boxes["postgres-2"].detail == "primary"
    assert [figure.label for figure in boxes["postgres-1"].figures][:2] == ["reads", "behind"]
    rates = {link.target: link.rate for link in drawing.links if link.source == "app-1"}
    assert rates == {"postgres-1": 1.0, "postgres-2": 8.0, "postgres-3": 1.0}


def test_a_failover_is_told_when_it_begins_and_when_writes_are_back(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    watch = Watch(events)
    lost = Failover(100.0, "postgres-1", reason="killed by SIGKILL")
    watch.look([lost])
    watch.look([lost])
    phases = {"detection": 0.1, "election": 0.2, "promotion": 0.3}
    done = msgspec.structs.replace(lost, after="postgres-2", phases=phases)
    watch.look([done])
    watch.look([msgspec.structs.replace(done, phases={**phases, "reconfiguration": 1.0})])
    told = [(event.at, event.kind, event.text) for event in events.kept]
    assert told == [
        (100.0, "failover", "postgres-1 is lost as the primary: killed by SIGKILL"),
        (
            100.6,
            "failover",
            "postgres-2 is the primary; writes were away for 0.60 s: "
            "detection 0.10 s, election 0.20 s, promotion 0.30 s",
        ),
    ]
    Watch(Events(tmp_path / "events.jsonl")).look([done])
    assert len(Events(tmp_path / "events.jsonl").kept) == 2, "another dashboard tells it again"


def test_a_switchover_is_no_loss(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    Watch(events).look([Failover(100.0, "postgres-1", planned=True)])
    assert [event.text for event in events.kept] == ["switchover: postgres-1 hands over"]
