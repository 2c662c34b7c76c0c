"""Servers, workers and balancers: what a topology needs, and what a change of it is. Starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow import stages
from outgrow.cluster import plan
from outgrow.cluster.front import changed, difference, share
from outgrow.engines import Placement
from outgrow.engines.application import Application
from outgrow.engines.postgres.postgres import BESIDES, Postgres, room
from outgrow.errors import Misuse
from outgrow.supervisor.order import in_order
from outgrow.topology import Topology, parse
from outgrow.workload import Workload

PLACE = Placement(Path("/app"), Path("/app/.outgrow"), "127.70.1.1")


def front(text: str) -> dict[str, Workload]:
    return {each.name: each for each in plan.front(parse(text), PLACE)}


def test_one_server_has_the_address_itself() -> None:
    found = front("stage = 2\n[application]\nworkers = 2")
    assert list(found) == ["app", "app.2"]
    assert [str(each) for each in found["app"].listen] == ["127.0.0.1:8000", "127.70.1.10:9401"]
    assert [str(each) for each in found["app.2"].listen] == ["127.0.0.1:8000", "127.70.1.10:9402"]
    assert found["app"].own == found["app"].listen[1]


def test_behind_a_balancer_each_server_is_a_host() -> None:
    found = front("stage = 4\n[application]\nservers = 3\nworkers = 2\n[balancer.pools]\nvideos = 2")
    assert list(found)[:4] == ["app-1", "app-1.2", "app-2", "app-2.2"]
    assert [name for name in found if name.startswith("videos")] == [
        "videos-1",
        "videos-1.2",
        "videos-2",
        "videos-2.2",
    ]
    assert [str(each) for each in found["app-3.2"].listen] == ["127.70.1.13:8000", "127.70.1.13:9402"]
    assert str(found["videos-1"].listen[0]) == "127.70.1.111:8000"
    assert found["app-2"].environment["OUTGROW_PROXIES"] == PLACE.host
    assert "OUTGROW_PROXIES" not in front("stage = 3")["app-1"].environment
    assert [str(each) for each in found["balancer-1"].claims] == ["127.0.0.1:8000"]


def test_every_process_is_told_what_to_ask_of_itself() -> None:
    found = front('stage = 4\n[application]\nworkers = 2\nwarm_up = ["/a?b=1", "/c"]')
    asked = {name: each.environment.get("OUTGROW_WARM_UP") for name, each in found.items()}
    servers = ("app-1", "app-1.2", "app-2", "app-2.2")
    assert asked == dict.fromkeys(servers, "/a?b=1 /c") | {"balancer-1": None}


def test_the_balancer_knows_every_server_once() -> None:
    topology = parse("stage = 4\n[application]\nservers = 3\nworkers = 4\n[balancer.pools]\nvideos = 1")
    servers = Application(topology, PLACE).servers()
    assert [(each.name, each.pool) for each in servers] == [
        ("app-1", "app"),
        ("app-2", "app"),
        ("app-3", "app"),
        ("videos-1", "videos"),
    ]
    assert Application(parse("stage = 2"), PLACE).servers() == ()
    assert topology.processes == 16


def test_hosts_and_their_cores() -> None:
    text = "stage = 4\n[application]\nworkers = 2\ncpu = 0.5\n[fleet]\nhost_cpu = 0.25"
    found = front(text)
    assert {each.host for each in found.values()} == {"app-1", "app-2", "balancer-1"}
    assert found["app-1.2"].cpu == 0.5 and found["balancer-1"].cpu == 0.25
    assert {each.cpu for each in front("stage = 4\n[fleet]\nhost_cpu = 0.1").values()} == {0.1}
    assert {each.cpu for each in front("stage = 4").values()} == {None}
    made = plan.plan(parse(text), PLACE, epoch=1, dashboard_port=9000)
    hosts = {each.name: (each.host, each.cpu) for each in made.workloads if each.host}
    assert hosts["postgres"] == ("postgres", 0.25)
    assert "migrate" not in hosts and "dashboard" not in hosts and "postgres-init" not in hosts
    assert [each.name for each in in_order(made.workloads)] == [each.name for each in made.workloads]


counts = st.integers(1, 100)
pools = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 40), max_size=3)


@given(counts, pools)
def test_no_two_nodes_share_a_host_and_a_server_keeps_its_own(count: int, others: dict[str, int]) -> None:
    def hosts(servers: int) -> dict[str, str]:
        table = "".join(f"{name} = {number}\n" for name, number in others.items())
        topology = parse(f"stage = 4\n[application]\nservers = {servers}\n[balancer.pools]\n{table}")
        return {each.name: each.address.host for each in Application(topology, PLACE).servers()}

    many = hosts(count)
    assert len(set(many.values())) == len(many) and PLACE.host not in many.values()
    assert hosts(1).items() <= many.items()


def test_what_is_new_and_what_goes() -> None:
    two, four = front("stage = 2"), front("stage = 4")
    database = Workload(name="postgres", argv=("x",), tier="database")
    added, gone = difference({**two, "postgres": database}, tuple(four.values()))
    assert [each.name for each in added] == ["app-1", "app-2", "balancer-1"] and gone == ("app",)
    added, gone = difference(four, tuple(two.values()))
    assert [each.name for each in added] == ["app"] and gone == ("balancer-1", "app-1", "app-2")
    assert difference(four, tuple(four.values())) == ((), ())


def test_only_the_front_changes() -> None:
    running = parse('stage = 2\n[application]\nname = "mine"\n[database]\npool = 7')
    wanted = stages.apply(parse("[cache]\nentries = 5"), "load-balancer").with_port(9999)
    found = changed(running, wanted)
    assert (found.stage, found.application.count, found.balancer.engine) == ("load-balancer", 2, "envoy")
    assert (found.application.name, found.application.port, found.database.pool) == ("mine", 8000, 7)
    assert found.cache == running.cache


@given(st.integers(1, 200), st.integers(1, 400), st.integers(1, 2000))
def test_connections_never_exceed_what_the_database_has(pool: int, number: int, limit: int) -> None:
    try:
        each = share(pool, number, limit)
    except Misuse:
        assert limit < 2 * number
    else:
        assert each * number <= limit and (each == pool or 2 <= each < pool)


def test_the_room_is_what_the_server_was_started_with() -> None:
    def limit(topology: Topology) -> int:
        return room(Postgres(topology, PLACE).workloads()[1])

    assert limit(parse("stage = 2")) == 200
    text = "stage = 4\n[application]\nservers = 10\nworkers = 2\n[database]\npool = 20\n"
    assert limit(parse(text)) == 200, "behind PgBouncer it stays as it is"
    big = parse(f'{text}pooler = "off"')
    assert limit(big) == 800
    text = Postgres(big, PLACE).workloads()[1].files[0].text
    assert f"max_connections = '{800 + BESIDES}'" in text


@pytest.mark.parametrize(
    ("before", "stage", "after"),
    [
        ("", "scale-out", ("postgres", "envoy", 4, 2)),
        ("stage = 2", "load-balancer", ("postgres", "envoy", 7, 2)),
        ("stage = 4\n[application]\nservers = 5", "scale-out", ("postgres", "envoy", 4, 5)),
        ("stage = 4\n[application]\nservers = 5", "separate-database", ("postgres", None, 7, 1)),
        ("stage = 3\n[application]\nservers = 1", "load-balancer", ("postgres", "envoy", 7, 1)),
        ("stage = 3", "single-server", ("sqlite", None, 7, 1)),
    ],
)
def test_a_stage_says_how_many_servers(before: str, stage: str, after: tuple[object, ...]) -> None:
    found = stages.apply(parse(before), stage)
    told = (found.database.engine, found.balancer.engine, found.balancer.layer, found.application.count)
    assert told == after
    assert stages.apply(found, stage) == found
