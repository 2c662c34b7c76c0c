"""Scenario files: right ones become values, wrong ones tell every mistake at once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from outgrow.errors import Misuse, ScenarioError
from outgrow.load.parse import parse, parse_file, seconds
from outgrow.load.profile import (
    Draw,
    Journey,
    Marks,
    Phase,
    Read,
    Request,
    Scenario,
    Section,
    Session,
    Setup,
    User,
    Write,
)
from tests.support.source import ROOT

SMALL = """\
rate = 10
[request.home]
weight = 1
path = "/"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_small_scenario_has_defaults_for_the_rest() -> None:
    scenario = parse(SMALL)
    assert scenario.phases == (Phase(rate=10, duration=30.0),)
    assert scenario.whole == (Phase(rate=10, duration=5.0), *scenario.phases)
    assert (scenario.arrivals, scenario.bookmark, scenario.timeout) == ("poisson", "keep", 10.0)


def test_the_example_is_right_and_nine_tenths_of_it_read() -> None:
    scenario = parse_file(ROOT / "examples" / "conduit" / "load.toml")
    made = {name: request.weight for name, request in scenario.request.items()}
    for journey in scenario.journey.values():
        for step in journey.steps:
            made[step] += journey.weight
    reads = {name: weight for name, weight in made.items() if scenario.request[name].method == "GET"}
    assert sum(made.values()) == pytest.approx(100)
    assert sum(reads.values()) == pytest.approx(90)
    lists = ("newest", "older", "by-tag", "by-author", "favorited-by", "my-articles")
    assert sum(made[name] for name in lists) == pytest.approx(35)
    assert made["article"] + made["my-article"] == pytest.approx(30)
    assert (made["tags"], made["comments"], made["feed"]) == (10, 5, 10)


def test_every_mistake_is_told_at_once_with_its_line_and_a_way_out() -> None:
    text = """\
rate = "fast"
warmup = "5 parsecs"
arivals = "poisson"
users = 0
bookmark = "lose"

[[phase]]
rate = 10
duration = "10s"

[[phase]]
rate = -1

[request.list]
weight = 1
path = "no slash"
methd = "GET"
status = 200
reads = [{ fact = "x" }]

[draw]
slug = 3
"""
    assert problems(text) == [
        'line 1: rate: must be a number from 0 to 1,000,000, not "fast"',
        'line 2: warmup: must be a duration like 30, "500ms" or "2m", not "5 parsecs"',
        'line 3: arivals: there is no such key (did you mean "arrivals"?)',
        "line 4: users: must be a whole number from 1 to 100,000, not 0",
        'line 5: bookmark: must be "keep" or "drop", not "lose"',
        "line 11: phase[1]: lacks duration",
        "line 12: phase[1].rate: must be a number from 0 to 1,000,000, not -1",
        'line 16: request.list.path: must be a text that begins with "/" and has no space, not "no slash"',
        'line 17: request.list.methd: there is no such key in [request.list] (did you mean "method"?)',
        "line 18: request.list.status: must be an array of HTTP statuses, like [200, 404], not 200",
        "line 19: request.list.reads[0]: lacks at",
        "line 22: draw.slug: must be a table, not 3 (write [draw.slug] on a line of its own)",
    ]


@pytest.mark.parametrize(
    ("addition", "told"),
    [
        ("[[phase]]\nrate = 5\nduration = 1", "rate: contradicts [[phase]]"),
        ("[request.b]\npath = '/{slug}'\nweight = 1", "{slug} has no value here (known: run, unique, user)"),
        ("[request.b]\npath = '/{'\nweight = 1", "request.b.path: has a lone"),
        ("[request.b]\npath = '/'", "request.b: is never made"),
        ("[request.b]\npath = '/'\nweight = 1\nhas = ['a b']", '"a b" is no place in an answer'),
        ("[journey.j]\nweight = 1\nsteps = ['hom']", "there is no [request.hom] (known: home)"),
        ("[journey.home]\nweight = 1\nsteps = ['home']", "is the name of a request, too"),
        (
            "[marks]\nat = 'a'\nwrite = { path = '/' }\nread = { path = '/{unique}' }",
            "marks: must write what a GET reads",
        ),
        (
            "[marks]\nat = 'a'\nwrite = { path = '/', method = 'PUT' }\nread = { path = '/{user}{unique}' }",
            "marks.read.path: {user} has no value here",
        ),
        (
            "[marks]\nat = 'a'\nwrite = { path = '/', method = 'POST' }\nread = { path = '/' }",
            "marks.read.path: does not say which mark",
        ),
        ("[marks]\nat = 'a'\nwrite = { path = '/', method = 'POST' }", "marks: lacks read"),
        ("[draw]\nuser = { words = 2 }", "draw.user: has a name that means something else"),
        ("[draw]\na = { words = 2, between = [1, 2] }", "draw.a: must have exactly one of"),
        ("[draw]\na = { from = 'slugs' }", 'draw.a.from: no [[setup]] collects "slugs"'),
        ("[draw]\na = { from = [] }", "draw.a.from: is empty"),
        ("[draw]\na = { between = [2, 1] }", "draw.a.between: has its larger number first"),
        ("[draw]\na = { words = 2, zipf = 1 }", "draw.a.zipf: needs from"),
        (
            "[request.b]\nweight = 1\npath = '/'\nsigned_in = 0.5\ncapture = { x = 'x' }",
            "request.b.signed_in: must be 1 where something is captured or written",
        ),
        (
            "[request.b]\nweight = 1\npath = '/{user}'\nsigned_in = 0.5",
            "request.b.path: {user} has no value here",
        ),
        (
            "[request.b]\nweight = 1\npath = '/'\nwrites = [{ fact = 'x', set = 1, add = 2 }]",
            "request.b.writes[0]: must have exactly one of set, add and remove",
        ),
        (
            "[[setup]]\nname = 'x'\npath = '/'\ncapture = { a = 'a' }",
            "setup[0]: belongs to no user who could keep something",
        ),
        ("[[setup]]\nname = 'x'\npath = '/'\nweight = 1", "setup[0].weight: means nothing here"),
        ("[[setup]]\nname = 'x'\npath = '/{user}'", "setup[0].path: {user} has no value here"),
        ("[user.headers]\na = '{token}'", "user.headers.a: {token} has no value here (known: run, user)"),
        ("[headers]\na = '{user}'", "headers.a: {user} has no value here (known: run)"),
    ],
)
def test_what_keys_must_mean_together(addition: str, told: str) -> None:
    found = problems(f"{SMALL}{addition}\n")
    assert len(found) == 1
    assert told in found[0]


def test_nothing_to_do_is_a_mistake() -> None:
    assert "nothing has a weight" in problems("rate = 1")[0]
    assert problems(SMALL.replace("10", "0")) == [
        "line 1: rate: is 0, and nothing happens (give a rate above 0)"
    ]


def test_broken_toml_is_told_as_such() -> None:
    assert problems("rate = = 1")[0].startswith("syntax: ")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="does not exist"):
        parse_file(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(Misuse, match="cannot be read"):
        parse_file(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("said", "meant"),
    [(3, 3.0), (0.5, 0.5), ("250ms", 0.25), ("2m", 120.0), ("1h", 3600.0), ("1x", None), (True, None)],
)
def test_durations(said: object, meant: float | None) -> None:
    assert seconds(said) == meant


def test_one_rate_or_duration_in_place_of_the_phases() -> None:
    phases = "[[phase]]\nrate = 5\nduration = 4\n[[phase]]\nrate = 9\nduration = 6\n"
    scenario = parse(phases + SMALL.removeprefix("rate = 10\n"))
    assert scenario.steady(None, None).phases == scenario.phases
    assert scenario.steady(7, None).phases == (Phase(rate=7, duration=10.0),)
    assert scenario.steady(None, 3).phases == (Phase(rate=5, duration=3),)


SECTIONS: tuple[type[Section], ...] = (
    Scenario,
    Phase,
    User,
    Draw,
    Request,
    Setup,
    Journey,
    Read,
    Write,
    Marks,
    Session,
)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_names_every_key(section: type[Section]) -> None:
    manual = (ROOT / "docs" / "load.md").read_text()
    names = {field.encode_name for field in msgspec.structs.fields(section)}
    assert {name for name in names if f"`{name}`" not in manual} == set()
