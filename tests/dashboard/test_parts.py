"""The parts of the read model that decide without asking anybody."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outgrow import endpoints
from outgrow.advisor.measures import Distribution, Family, Tally
from outgrow.cluster import NodeStatus, Status
from outgrow.cluster.status import Backups
from outgrow.dashboard import actions, events, growth, logs, metrics, servers, tables
from outgrow.dashboard.drawing import Front, draw
from outgrow.dashboard.events import Events
from outgrow.dashboard.health import judge
from outgrow.dashboard.http import Client
from outgrow.dashboard.requests import Requests
from outgrow.dashboard.snapshot import Balanced, Node
from outgrow.dashboard.stream import Stream
from outgrow.engines.redis.cache import Figures as CacheFigures
from outgrow.growth import journal as journals
from tests.support import exposition

# --- Slow and failed requests --------------------------------------------------------------------


def told(number: int, **changes: Any) -> msgspec.Raw:
    request = {
        "id": number,
        "reason": "failed" if number % 10 == 0 else "slowest",
        "at": 1.0,
        "method": "GET",
        "route": "/articles/{slug}",
        "path": f"/articles/{number}",
        "status": 500 if number % 10 == 0 else 200,
        "ms": float(number % 97),
        "error": None,
        "trace_id": "a" * 32,
        "spans": [["query", "SELECT articles", "db", 100, 2000, None]] * 6,
    }
    return msgspec.Raw(msgspec.json.encode({**request, **changes}))


def test_ten_thousand_requests_are_kept_and_browsed_quickly() -> None:
    store = Requests()
    store.add("app", [told(number) for number in range(12_000)])
    assert len(store) == 10_000 and store.newest == 12_000 and store.failed == 1000
    page = store.page(limit=100)
    assert page.total == 10_000 and len(page.bodies) == 100
    assert msgspec.json.decode(page.bodies[0])["number"] == 12_000
    began = time.perf_counter()
    for offset in range(0, 10_000, 1000):
        store.page(search="articles app", offset=offset, limit=100)
    assert time.perf_counter() - began < 5


def test_pages_stay_where_they_are_while_more_come_in() -> None:
    store = Requests()
    store.add("app", [told(number) for number in range(100)])
    first = store.page(limit=10)
    store.add("app", [told(number) for number in range(100, 150)])
    second = store.page(upto=first.newest, offset=10, limit=10)
    numbers = [msgspec.json.decode(body)["number"] for body in (*first.bodies, *second.bodies)]
    assert numbers == list(range(100, 80, -1)) and second.total == 100


def test_choosing() -> None:
    store = Requests()
    store.add("app", [told(number) for number in range(50)])
    store.add("app2", [told(7, path="/tags", method="POST")])
    assert store.page(reason="failed").total == 5
    assert store.page(search="post /tags").total == store.page(search="APP2").total == 1
    slowest = [msgspec.json.decode(body)["ms"] for body in store.page(order="slowest").bodies]
    assert slowest == sorted(slowest, reverse=True)
    document = msgspec.json.decode(store.page(search="app2").as_json())
    assert document["total"] == 1 and document["requests"][0]["node"] == "app2"


def test_long_requests_are_bounded_by_their_bytes() -> None:
    store = Requests(bytes_max=100_000)
    store.add("app", [told(number, path="/" + "x" * 1000) for number in range(1000)])
    assert 20 < len(store) < 100


# --- Logs ----------------------------------------------------------------------------------------


def test_logs_are_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text('{"ts":"2026-01-01T00:00:02.000Z","message":"b"}\ntrace of it\n')
    (tmp_path / "postgres.log").write_text(
        "2026-01-01 00:00:01.500 UTC [1] LOG: a\n2026-01-01 00:00:03.000 UTC [1] LOG: c\n"
    )
    lines = [line.text[-4:] for line in logs.tail(tmp_path, {}).lines]
    assert lines == ["G: a", '"b"}', "f it", "G: c"]


def test_a_half_line_waits_for_its_end_and_a_rotation_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\ntw")
    first = logs.tail(tmp_path, {})
    assert [line.text for line in first.lines] == ["one"]
    with path.open("a") as file:
        file.write("o\n")
    second = logs.tail(tmp_path, first.cursor)
    assert [line.text for line in second.lines] == ["two"]
    path.write_text("new\n")
    assert [line.text for line in logs.tail(tmp_path, second.cursor).lines] == ["new"]


def test_more_lines_than_fit_are_told(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("".join(f"line {number}\n" for number in range(1000)))
    tail = logs.tail(tmp_path, {}, search="LINE")
    assert len(tail.lines) == logs.LINES_MAX and tail.skipped == 600 and tail.lines[-1].text == "line 999"


# --- Events --------------------------------------------------------------------------------------


def status(*nodes: NodeStatus, **changes: Any) -> Status:
    facts: dict[str, Any] = {
        "application": "a",
        "stage": "single-server",
        "epoch": 1,
        "url": "u",
        "since": 5.0,
    }
    return Status(**{**facts, "supervisor_pid": 1, "nodes": nodes, **changes})


def node(state: str = "ready", **changes: Any) -> NodeStatus:
    facts: dict[str, Any] = {
        "name": "app",
        "kind": "service",
        "pid": 7,
        "address": "127.0.0.1:1",
        "restarts": 0,
    }
    return NodeStatus(**{**facts, "state": state, "since": 1.0, "tier": "application", **changes})


def test_what_happens_to_nodes_is_told_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    kept = Events(path)
    watch = events.Watch(kept)
    for at, seen in enumerate(
        (
            status(node()),
            status(node()),
            status(node("restarting", restarts=1, text="killed by SIGKILL; again in 0.1 s")),
            status(node(restarts=1)),
            status(node("failed", restarts=8, text="died 8 times")),
            status(node(restarts=8), node(name="app2"), epoch=2),
            status(node(restarts=8), stage="separate-database", epoch=3),
        )
    ):
        watch.look(float(at), seen)
    told = [(event.kind, event.node, event.text) for event in kept.kept]
    assert told == [
        ("fleet", "", "the fleet has started at stage single-server, epoch 1"),
        ("restart", "app", "killed by SIGKILL; again in 0.1 s; started again for the 1st time"),
        ("ready", "app", "is ready"),
        ("restart", "app", "died 8 times; started again for the 8th time"),
        ("failed", "app", "died 8 times"),
        ("stage", "", "epoch 2: the endpoints have changed"),
        ("ready", "app", "is ready"),
        ("fleet", "app2", "is new"),
        ("stage", "", "single-server became separate-database"),
        ("fleet", "app2", "is no part of the fleet any more"),
    ]
    with path.open("ab") as file:
        file.write(b'{"id": 99, "at"')
    again = Events(path)
    assert list(again.kept) == list(kept.kept)
    events.Watch(again).look(9.0, status(node()))
    assert again.newest == kept.newest, "the same fleet's start is not told twice"


def test_the_file_of_events_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LINES_MAX", 600)
    kept = Events(tmp_path / "events.jsonl")
    for number in range(1500):
        kept.add(float(number), "ready", "is ready", "app")
    assert len((tmp_path / "events.jsonl").read_bytes().splitlines()) <= 600
    assert Events(tmp_path / "events.jsonl").newest == 1500


def test_a_growth_is_told_step_by_step(tmp_path: Path) -> None:
    kept = Events(tmp_path / "events.jsonl")
    watch = growth.Watch(tmp_path, kept)
    watch.look()
    journal = tmp_path / "journal.jsonl"
    lines = [
        {"at": 1.0, "event": "begun", "move": "separate_database", "before": {"stage": "single-server"}},
        {"at": 2.0, "event": "applying", "step": "copy"},
        {"at": 3.0, "event": "done", "step": "copy", "text": "500,000 rows"},
    ]
    journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines) + b'{"at": 4.0, "ev')
    watch.look()
    watch.look()
    assert [event.text for event in kept.kept] == [
        "separate_database: has begun",
        "separate_database: copy is done: 500,000 rows",
    ]
    assert watch.now is not None and (watch.now.step, watch.now.event) == ("copy", "done")
    assert watch.now.cut_off
    with journals.locked(tmp_path, "growing"):
        assert not watch.now.cut_off
    journal.unlink()
    audit = {"began": 1.0, "ended": 5.0, "who": "me@here", "move": "separate_database", "outcome": "done"}
    (tmp_path / "audit.jsonl").write_bytes(msgspec.json.encode(audit) + b"\n")
    watch.look()
    assert kept.kept[-1].text == "separate_database: done, by me@here" and watch.now is None
    growth.Watch(tmp_path, kept).look()
    assert len(kept.kept) == 3, "a restarted dashboard tells nothing twice"


# --- Health --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "answers", "expected"),
    [
        ((node(),), True, "ok"),
        ((node("restarting"),), True, "degraded"),
        ((node("failed", text="exit code 1"),), True, "failing"),
        ((node(), node("failed", name="dashboard", tier="")), True, "degraded"),
        ((node(),), False, "unknown"),
    ],
)
def test_health(nodes: tuple[NodeStatus, ...], answers: bool, expected: str) -> None:
    health = judge(status(*nodes), answers, {})
    assert health.status == expected and bool(health.reasons) == (expected != "ok")


# --- The drawing ---------------------------------------------------------------------------------


def test_what_a_prometheus_is_told_of_the_fleet() -> None:
    def scraped(of: Status | None) -> dict[str, list[float]]:
        families = exposition.parse(metrics.exposition(of, None, "")[1].decode())
        return {name: list(family.samples.values()) for name, family in families.items()}

    kept = Backups(
        at=9.0, behind=7, behind_s=0.5, latest=5.0, copies=2, every=60.0, failure="no space", failed_at=8.0
    )
    told = scraped(status(node(), node("failed", name="postgres", tier="database"), backups=kept))
    assert told["outgrow_fleet_node_up"] == [1, 0]
    backups = {name.removeprefix("outgrow_backup_"): each for name, each in told.items()}
    assert backups["archive_lag_seconds"] == [0.5] and backups["archive_lag_bytes"] == [7]
    assert backups["failing"] == [1] and backups["last_failure_timestamp_seconds"] == [8]
    assert backups["latest_copy_timestamp_seconds"] == [5] and backups["earliest_timestamp_seconds"] == []
    for nothing in (status(node()), None):
        assert all(each == [] for name, each in scraped(nothing).items() if "backup" in name), (
            "unknown is not 0"
        )


PREFIX = "outgrow_fleet_db_"


def test_what_a_prometheus_is_told_of_replicas() -> None:
    def scraped(of: Status) -> dict[str, dict[str, float]]:
        families = exposition.parse(metrics.exposition(of, None, "")[1].decode())
        mine = {name: each for name, each in families.items() if name.startswith(PREFIX)}
        return {
            name.removeprefix(PREFIX): {
                dict(labels)["node"]: value for (_, labels), value in family.samples.items()
            }
            for name, family in mine.items()
        }

    nodes = (
        node(name="postgres-1", tier="database", role="primary"),
        node(name="postgres-2", tier="database", role="synchronous replica", kept=5),
        node(name="postgres-3", tier="database", role="replica", kept=7),
        node(name="postgres-4", tier="database", kept=1_000),
    )
    kept = {"postgres-2": 5, "postgres-3": 7, "postgres-4": 1_000}
    told = scraped(status(*nodes, replication="sync"))
    assert told == {"synchronous": {"postgres-2": 1, "postgres-3": 0}, "log_kept_bytes": kept}
    assert scraped(status(*nodes, replication="async"))["synchronous"] == {}


def drawn(name: str, tier: str) -> Node:
    return Node(name, tier, "service", "ready", "", 1, "127.0.0.1:1", 0.0, 0, 0.5, 1000)


def document(engine: Any = "sqlite", url: str = "sqlite:///a.db") -> endpoints.Endpoints:
    shard = endpoints.Shard("0", (endpoints.Node("db", url),))
    return endpoints.Endpoints(application="a", stage="s", database=endpoints.Database(engine, (shard,)))


TALLY = Tally(
    seconds=1.0, requests=Distribution((1.0,), [10, 0], 1.0), queries=Distribution((1.0,), [30, 0], 1.0)
)


def test_a_whole_fleet_is_drawn_from_the_clients_to_the_data() -> None:
    nodes = [drawn("balancer", "balancer"), drawn("app-1", "application"), drawn("app-2", "application")]
    nodes += [
        drawn("redis", "cache"),
        drawn("postgres", "database"),
        drawn("replica", "database"),
        drawn("dashboard", ""),
    ]
    drawing = draw(
        nodes,
        front(nodes, {"app-1": TALLY, "app-2": TALLY}),
        document("postgres", "postgresql://h/a"),
        {"app-1": TALLY, "app-2": TALLY},
        TALLY.plus(TALLY),
        None,
    )
    assert drawing.tiers == ["clients", "balancer", "application", "cache", "database"]
    links = {(link.source, link.target): link.rate for link in drawing.links}
    assert links["clients", "balancer"] == 20 and links["balancer", "app-1"] == 10
    assert links["app-2", "replica"] == 30 and ("balancer", "postgres") not in links
    assert len(links) == 1 + 2 + 2 * 3
    assert "dashboard" not in {box.id for box in drawing.boxes}


def test_the_shared_cache_says_how_full_it_is() -> None:
    figures = CacheFigures(memory=30, memory_max=120, keys=7, evicted=5)
    seen = Front(cache=figures, evicted=2.5)
    drawing = draw([drawn("redis-cache", "cache")], seen, None, {}, TALLY, None)
    box = next(box for box in drawing.boxes if box.tier == "cache")
    assert box.detail == "Redis"
    shown = {figure.label: figure.value for figure in box.figures}
    assert shown["full"] == 0.25 and shown["evicted"] == 2.5
    families = exposition.parse(metrics.exposition(None, figures, "")[1].decode())
    told = {
        name.removeprefix("outgrow_cache_server_"): list(family.samples.values())
        for name, family in families.items()
        if name.startswith("outgrow_cache_server_")
    }
    assert told == {"memory_bytes": [30], "memory_max_bytes": [120], "keys": [7], "evicted_total": [5]}


def test_a_pooler_is_drawn_between() -> None:
    nodes = [drawn("app-1", "application"), drawn("postgres", "database"), drawn("pgbouncer", "pooler")]
    tallies = {"app-1": TALLY}
    drawing = draw(
        nodes, front(nodes, tallies), document("postgres", "postgresql://h/a"), tallies, TALLY, None
    )
    links = {(link.source, link.target): link.rate for link in drawing.links}
    assert links["app-1", "pgbouncer"] == links["pgbouncer", "postgres"] == 30
    assert ("app-1", "postgres") not in links


def test_a_database_of_ones_own_is_drawn_although_it_is_no_node() -> None:
    nodes = [drawn("app", "application")]
    drawing = draw(nodes, front(nodes, {}), document("postgres", "postgresql://h/a"), {}, Tally(), None)
    [database] = [box for box in drawing.boxes if box.tier == "database"]
    assert database.inside is None and "of your own" in database.detail
    assert ("app", "database") in {(link.source, link.target) for link in drawing.links}


def test_without_a_document_the_nodes_are_drawn() -> None:
    nodes = [drawn("app", "application")]
    drawing = draw(nodes, front(nodes, {}), None, {}, Tally(), None)
    assert drawing.tiers == ["clients", "application"]


def test_a_standby_passes_nothing_on_and_parts_of_many_servers_are_said() -> None:
    servers_ = [drawn(f"app-{number}", "application") for number in range(1, 17)]
    nodes = [drawn("balancer-1", "balancer"), drawn("balancer-2", "balancer"), *servers_]
    tallies = {node.name: TALLY for node in servers_}
    asked = front(nodes, tallies)._replace(rates={"balancer-1": 160.0, "balancer-2": 0.0})
    drawing = draw(nodes, asked, document("postgres", "postgresql://h/a"), tallies, TALLY, None)
    rates = {(link.source, link.target): link.rate for link in drawing.links}
    assert rates["clients", "balancer-1"] == 160 and rates["clients", "balancer-2"] == 0
    assert rates["balancer-1", "app-9"] == 10 and rates["balancer-2", "app-9"] == 0
    assert all(box.inside is None for box in drawing.boxes) and "cache" in drawing.notes["application"]
    assert [box.id for box in drawing.boxes if box.tier == "application"] == [each.name for each in servers_]


# --- Servers -------------------------------------------------------------------------------------


def front(nodes: list[Node], tallies: dict[str, Tally], balanced: dict[str, Balanced] | None = None) -> Front:
    found = servers.servers(nodes, tallies, {}, balanced or {}, balancers_answer=balanced is not None)
    return Front({server.name: server for server in found})


def seen(state: str) -> Balanced:
    return Balanced("app", state, 0.5, 10.0, 0.0, 1, 2, 1)


def test_a_server_is_its_processes_together() -> None:
    nodes = [drawn(name, "application") for name in ("app-1", "app-1.2", "app-2", "app-2.2")]
    tallies = {"app-1": TALLY, "app-1.2": TALLY, "app-2": TALLY}
    one, two = servers.servers(nodes, tallies, {"app-1": 2.0, "app-1.2": 1.0}, {}, balancers_answer=False)
    assert (one.name, one.processes, one.rate, one.in_flight) == ("app-1", ["app-1", "app-1.2"], 20, 3)
    assert (one.cpu, one.memory, two.rate, two.in_flight) == (1.0, 2000, 10, None)
    assert one.share == pytest.approx(2 / 3) and two.share == pytest.approx(1 / 3)
    assert one.p50 is not None and one.balanced is None


def test_one_failed_process_is_the_state_of_its_server() -> None:
    nodes = [drawn("app-1", "application"), replace(drawn("app-1.2", "application"), state="failed")]
    [server] = servers.servers(nodes, {}, {}, {"app-1": seen("healthy")}, balancers_answer=True)
    assert server.state == "failed" and server.rate is None and server.share is None


@pytest.mark.parametrize(
    ("balanced", "answers", "expected"),
    [
        ({"app-1": seen("healthy")}, True, "ready"),
        ({"app-1": seen("ejected")}, True, "ejected"),
        ({"app-1": seen("unhealthy")}, True, "unhealthy"),
        ({}, True, "draining"),
        ({}, False, "ready"),
    ],
)
def test_what_the_balancer_makes_of_a_server(
    balanced: dict[str, Balanced], answers: bool, expected: str
) -> None:
    [server] = servers.servers([drawn("app-1", "application")], {}, {}, balanced, balancers_answer=answers)
    assert server.state == expected


def test_transitions_are_told(tmp_path: Path) -> None:
    kept = Events(tmp_path / "events.jsonl")
    watch = servers.Watch(kept)
    app = [drawn("app-1", "application")]
    both = [*app, drawn("app-2", "application")]
    for at, (nodes, balanced) in enumerate(
        (
            (app, {"app-1": seen("healthy")}),
            (app, {"app-1": seen("ejected")}),
            (app, {"app-1": seen("unhealthy")}),
            (app, {"app-1": seen("unhealthy")}),
            (app, {"app-1": seen("healthy")}),
            (both, {"app-1": seen("healthy")}),
            (both, {"app-1": seen("healthy"), "app-2": seen("healthy")}),
            (both, {"app-1": seen("healthy")}),
            (app, {"app-1": seen("healthy")}),
        )
    ):
        watch.look(float(at), servers.servers(nodes, {}, {}, balanced, balancers_answer=True))
    told = [(event.kind, event.node) for event in kept.kept]
    assert told == [
        ("ejected", "app-1"),
        ("out", "app-1"),
        ("in", "app-1"),
        ("in", "app-2"),
        ("draining", "app-2"),
    ]


def test_the_history_has_the_worst_state_of_each_server() -> None:
    nodes = [drawn("app-1", "application"), drawn("app-2", "application")]
    found = servers.servers(
        nodes,
        {"app-1": TALLY},
        {},
        {"app-1": seen("ejected"), "app-2": seen("healthy")},
        balancers_answer=True,
    )
    series = servers.series(found)
    assert series["state:app-1"] == 4 and series["state:app-2"] == 1
    assert series["rate:app-1"] == 10 and series["rate:app-2"] is None
    assert set(servers.series(found[:1])) == {"state:app-1"}, "of one server the whole says the rest"


@pytest.mark.parametrize(
    ("move", "kind"),
    [
        ("scale", "scale"),
        ("autoscale: 2 -> 3, cpu", "scale"),
        ("deploy: release 4", "deploy"),
        ("drill: kill-server", "drill"),
        ("add-balancer", "growth"),
    ],
)
def test_what_the_audit_tells_has_its_kind(move: str, kind: str) -> None:
    assert growth.kind_of(move) == kind


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"event":"change","node":"app-3","state":"starting","text":""}', "app-3: starting"),
        (b'{"event":"ended","added":["app-3"],"gone":[]}', "+ app-3"),
        (b'{"error":{"message":"no","hint":"wait"}}', "no. wait"),
        (b"\xff no JSON", "\ufffd no JSON"),
        (b"[1]", "[1]"),
    ],
)
def test_what_a_command_says_in_words(line: bytes, said: str) -> None:
    assert actions.words(line) == said


# --- Tables --------------------------------------------------------------------------------------


def requests_family(*counts: int) -> dict[str, Family]:
    figures = [float(count) for count in counts]
    total = sum(figures)
    return {
        "outgrow_http_request_seconds": Family(
            "histogram", ("route",), (0.01,), [(("/a",), [*figures, 1.0])]
        ),
        "outgrow_http_requests_total": Family(
            "counter", ("method", "route", "status"), (), [(("GET", "/a", "500"), [total])]
        ),
    }


def test_routes_of_two_processes_together() -> None:
    minute = tables.Minute(requests_family(30, 0), requests_family(10, 0), 10.0)
    [route] = tables.routes([minute, minute])
    assert (route.route, route.methods, route.rate, route.error_share) == ("/a", ["GET"], 4.0, 1.0)
    assert tables.routes([tables.Minute(requests_family(10, 0), requests_family(10, 0), 10.0)]) == []
    [anew] = tables.routes([tables.Minute(requests_family(5, 0), requests_family(10, 0), 10.0)])
    assert anew.rate == 0.5, "the counters have begun anew"


# --- The stream and the client -------------------------------------------------------------------


async def test_a_slow_page_gets_the_newest_and_nothing_is_rendered_for_nobody() -> None:
    rendered = 0

    def render() -> bytes:
        nonlocal rendered
        rendered += 1
        return b"%d" % rendered

    stream = Stream(render)
    for _ in range(10):
        stream.publish()
    assert rendered == 0

    got: list[bytes] = []
    may_go_on = asyncio.Event()

    async def send(message: Any) -> None:
        got.append(message["body"])
        if len(got) == 2:
            await may_go_on.wait()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    page = asyncio.create_task(stream.serve(receive, send))
    while len(got) < 2:
        await asyncio.sleep(0)
    for _ in range(50):
        stream.publish()
    may_go_on.set()
    while len(got) < 3:
        await asyncio.sleep(0)
    stream.close()
    await page
    assert got[1:3] == [b"data: 1\n\n", b"data: 2\n\n"] and stream.count == 0


async def test_the_client_opens_a_closed_connection_again() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client("127.0.0.1", server.sockets[0].getsockname()[1])
    assert [await client.get("/") for _ in range(3)] == [(200, b"ok")] * 3 and served == 3
    server.close()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        await client.get("/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n",
    ],
)
async def test_an_answer_that_makes_no_sense(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = Client("127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(OSError, match="no answer"):
        await client.get("/")
    server.close()
