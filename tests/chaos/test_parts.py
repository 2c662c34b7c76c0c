"""What a history is made of (logs, balancers, marks), and what shows it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from outgrow import stages
from outgrow.chaos import drills, marks
from outgrow.chaos.history import Attempt, Happening, History, Sample
from outgrow.chaos.html import html
from outgrow.chaos.report import Report, failures, report, series
from outgrow.chaos.run import servers_of
from outgrow.chaos.text import text
from outgrow.chaos.watch import samples
from outgrow.errors import Misuse
from outgrow.load.generator import run
from outgrow.load.parse import parse, parse_file
from outgrow.load.target import resolve
from outgrow.topology import parse as parse_topology
from tests.load.realworld import Server, serving
from tests.support.source import ROOT

STAGE = 'stage = "load-balancer"\n'
SCENARIO = """
rate = 50
duration = 1
warmup = 0
users = 5
[request.home]
weight = 1
path = "/api/tags"
[marks]
share = 0.5
at = "notes.*.id"
write = { method = "POST", path = "/notes", json = { text = "{run}-{unique}" } }
read = { path = "/notes?text={run}-{unique}" }
"""


def line(trace: str, logger: str = "outgrow.access") -> bytes:
    return msgspec.json.encode({"logger": logger, "message": "request", "trace_id": trace}) + b"\n"


def test_who_has_answered_is_in_the_logs(tmp_path: Path) -> None:
    run_ = "0000abcdabcdabcd"
    (tmp_path / "app-1.log").write_bytes(line(f"{run_}01") + line("ffff01") + line(f"{run_}02"))
    (tmp_path / "app-2.log.1").write_bytes(line(f"{run_}02") + line(f"{run_}03", "app"))
    cut_short = line(f"{run_}05")[:-9]
    (tmp_path / "app-2.log").write_bytes(line(f"{run_}04") + b'{"half' + cut_short)
    assert servers_of(tmp_path, run_) == {
        f"{run_}01": ["app-1"],
        f"{run_}02": ["app-1", "app-2"],
        f"{run_}04": ["app-2"],
    }


def test_what_a_balancer_says_of_its_servers() -> None:
    def host(name: str, requests: str, **health: bool) -> dict[str, Any]:
        return {
            "hostname": name,
            "stats": [{"name": "rq_total", "value": requests}, {"name": "rq_active", "type": "GAUGE"}],
            "health_status": {"eds_health_status": "HEALTHY", **health},
        }

    told = {
        "cluster_statuses": [
            {
                "name": "app",
                "host_statuses": [host("app-1", "12"), host("app-2", "7", failed_outlier_check=True)],
            },
            {"name": "outgrow-latency", "host_statuses": [{"address": {"pipe": {"path": "x"}}}]},
            {"name": "empty"},
        ]
    }
    assert list(samples(1.5, "balancer-1", told)) == [
        Sample(1.5, "balancer-1", "app-1", 12, True),
        Sample(1.5, "balancer-1", "app-2", 7, False),
    ]


def test_a_scenario_without_marks_is_refused() -> None:
    with pytest.raises(Misuse, match=r"no \[marks\]"):
        marks.marked(parse('rate = 1\n[request.home]\nweight = 1\npath = "/"\n'))


def test_the_example_has_marks() -> None:
    scenario = parse_file(ROOT / "examples" / "conduit" / "load.toml")
    marked = marks.marked(scenario)
    total = sum(each.weight for each in marked.request.values())
    total += sum(each.weight for each in marked.journey.values())
    assert marked.journey[marks.JOURNEY].weight / total == pytest.approx(0.1)


class Notes(Server):
    """Keeps notes; every fifth write is kept twice, and every seventh not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.spoil = False
        self._writes = 0

    def write(self, text_: str) -> None:
        self._writes += 1
        copies = 1
        if self.spoil:
            copies = 2 if self._writes % 5 == 0 else 0 if self._writes % 7 == 0 else 1
        self.kept += [text_] * copies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/notes":
            await super().__call__(scope, receive, send)
            return
        message = await receive()
        if scope["method"] == "POST":
            self.write(msgspec.json.decode(message["body"])["text"])
            body: Any = {}
        else:
            wanted = scope["query_string"].decode().partition("text=")[2]
            body = {"notes": [{"id": place} for place, kept in enumerate(self.kept) if kept == wanted]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": msgspec.json.encode(body)})


@pytest.mark.parametrize("spoil", [False, True])
async def test_marks_are_written_read_back_and_counted(spoil: bool) -> None:
    scenario, app = parse(SCENARIO), Notes()
    app.spoil = spoil
    assert scenario.marks is not None
    finder, keys, read_back = marks.Finder(scenario.marks), set[str](), dict[str, int | None]()

    def observe(seen: Any) -> None:
        if seen.name == marks.WRITE and not seen.verdict.kind:
            keys.add(marks.key(seen.values))
        if seen.name == marks.READ:
            read_back[marks.key(seen.values)] = finder.version(seen)

    async with serving(app) as url:
        loaded = await run(marks.marked(scenario), resolve(url), observe=observe)
        found = await marks.look(scenario.marks, resolve(url), keys)
    assert loaded.failed == 0 and len(keys) > 5 and set(found) == keys
    assert {key: found[key] for key in read_back} == read_back
    assert set(found.values()) == ({0, 1, 2} if spoil else {1})


def attempt(at: float, **more: Any) -> Attempt:
    base = Attempt(request="home", method="GET", intended=at, sent=at, ended=at + 0.01, servers=("app-1",))
    return replace(base, **more)


async def example(held: bool) -> Report:
    """A report of a kill, with a write that failed too late if it is not to hold."""
    attempts = [attempt(n / 20) for n in range(500)]
    written = attempt(3.0, method="POST", key="a-1", version=1)
    attempts += [written, attempt(20.0, method="POST", failure="" if held else "reset", detail="<b>")]
    happenings = (
        Happening(10.0, "fault", "app-2", "SIGKILL of app-2"),
        Happening(10.5, "out", "app-2", "out"),
    )
    history = History(
        attempts=tuple(attempts),
        calm=(2, 10),
        ended=25.0,
        happenings=happenings,
        samples=tuple(Sample(n / 10, "balancer-1", "app-1", n, True) for n in range(250)),
        found={"a-1": 1},
    )
    async with serving(Server()) as url:
        load = await run(parse(SCENARIO.partition("[marks]")[0]), resolve(url))
    topology = parse_topology('stage = "load-balancer"\n')
    return report(drills.find("kill-server"), topology, history, load, time.time())


@pytest.mark.parametrize("held", [True, False])
async def test_what_is_shown(held: bool) -> None:
    made = await example(held)
    assert made.held == held, [each for each in made.findings if not each.held]
    said, page = text(made), html(made)
    assert ("BROKEN" in said) != held and "SIGKILL of app-2" in said
    assert "SIGKILL of app-2" in page and 'class="moment fault"' in page and page.count("<svg") >= 3
    assert "<b>" not in page.partition("<details>")[2].partition("</details>")[0], (
        "what came from outside is text"
    )
    assert msgspec.json.decode(msgspec.json.encode(made))["held"] == held


def test_seconds() -> None:
    found = series(
        [attempt(0.1), attempt(0.2, failure="reset"), attempt(2.5, method="POST", failure="reset")]
    )
    assert [each.answered for each in found] == [1, 0, 0]
    assert [each.errors for each in found] == [{"read: reset": 1}, {}, {"write: reset": 1}]
    assert failures([]) == {} and series([]) == []


ANY_STAGE = {"kill-supervisor", "deploy", "deploy-slow"}


@pytest.mark.parametrize("name", drills.TABLE)
def test_every_drill_says_what_it_is(name: str) -> None:
    drill = drills.find(name)
    assert drill.name == name and drill.shows and drill.needs and drill.does
    assert drill.refuses(parse_topology("")) is not None or name in ANY_STAGE
    accepts = [
        parse_topology(f'{STAGE}[sessions]\nengine = "memory"\n[backup]\ndirectory = "/mnt/backups"\n'),
        stages.apply(parse_topology(""), "replication"),
        stages.apply(parse_topology(""), "cache"),
    ]
    assert None in [drill.refuses(each) for each in accepts]
    assert f"`{name}`" in (ROOT / "docs" / "drills.md").read_text()


def test_an_unknown_drill() -> None:
    with pytest.raises(Misuse, match="no drill"):
        drills.find("earthquake")
    assert asyncio.iscoroutinefunction(drills.find("scale").run)
