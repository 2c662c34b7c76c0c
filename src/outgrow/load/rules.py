"""What the keys of a scenario must mean together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from outgrow.errors import Problem
from outgrow.load.profile import Draw, Journey, Read, Request, Scenario, Setup, Write
from outgrow.load.template import Document, Place, Template

OWN_NAMES = {
    "user": "the user's number, from 0",
    "run": "a word that no other run has",
    "unique": "a number that no other request has",
}
"""Names that every scenario has."""


def contradictions(scenario: Scenario) -> list[Problem]:
    """Every rule that is broken, of a scenario whose values are each right by themselves."""
    return [
        *_times(scenario),
        *_draws(scenario),
        *_requests(scenario),
        *_journeys(scenario),
        *_marks(scenario),
        *_session(scenario),
    ]


def _times(scenario: Scenario) -> Iterator[Problem]:
    if scenario.phase and scenario.rate is not None:
        yield Problem("rate", "contradicts [[phase]]", hint="each phase has a rate of its own: remove one")
    for number, phase in enumerate(scenario.phase):
        if not phase.rate and not phase.to:
            yield Problem(
                f"phase[{number}].rate", "is 0, and nothing happens", hint="give a rate, or remove it"
            )
    if scenario.rate == 0:
        yield Problem("rate", "is 0, and nothing happens", hint="give a rate above 0")


def _draws(scenario: Scenario) -> Iterator[Problem]:
    collected = {name for setup in scenario.setup for name in setup.collect}
    for name, draw in scenario.draw.items():
        path = f"draw.{name}"
        given = [key for key, value in _sources(draw).items() if value is not None]
        if len(given) != 1:
            yield Problem(path, "must have exactly one of from, words and between")
        if name in OWN_NAMES or name in _captured(scenario):
            yield Problem(path, "has a name that means something else", hint="choose another name")
        if isinstance(draw.from_, str) and draw.from_ not in collected:
            yield Problem(f"{path}.from", f'no [[setup]] collects "{draw.from_}"', hint=_known(collected))
        if draw.from_ == ():
            yield Problem(f"{path}.from", "is empty")
        if draw.zipf is not None and draw.from_ is None:
            yield Problem(f"{path}.zipf", "needs from")
        if draw.between is not None and draw.between[0] > draw.between[1]:
            yield Problem(f"{path}.between", "has its larger number first")


def _sources(draw: Draw) -> dict[str, object]:
    return {"from": draw.from_, "words": draw.words, "between": draw.between}


def _requests(scenario: Scenario) -> Iterator[Problem]:
    shared = {*OWN_NAMES, *scenario.draw}
    captured: set[str] = set()
    for number, setup in enumerate(scenario.setup):
        drawn = {name for name, draw in scenario.draw.items() if not isinstance(draw.from_, str)}
        known = {*OWN_NAMES, *(scenario.draw if setup.each == "user" else drawn), *captured}
        known -= set() if setup.each == "user" else {"user", *captured}
        yield from _request(f"setup[{number}]", setup, known)
        if setup.weight:
            yield Problem(
                f"setup[{number}].weight", "means nothing here", hint="a set-up request is made once"
            )
        captured |= setup.capture.keys()
    captured = _captured(scenario)
    for name, request in scenario.request.items():
        of_users = {"user", *captured} if request.signed_in < 1 else set()
        yield from _request(f"request.{name}", request, {*shared, *captured} - of_users)
        if not request.weight and not any(name in each.steps for each in scenario.journey.values()):
            yield Problem(
                f"request.{name}", "is never made", hint="give it a weight, or name it in a journey's steps"
            )
    for name, text in scenario.user.headers.items():
        yield from _text(f"user.headers.{name}", text, {"user", "run", *captured})
    for name, text in scenario.headers.items():
        yield from _text(f"headers.{name}", text, {"run"})


def _captured(scenario: Scenario) -> set[str]:
    requests: Iterable[Request] = (*scenario.setup, *scenario.request.values())
    return {name for request in requests for name in request.capture}


def _request(path: str, request: Request, known: set[str]) -> Iterator[Problem]:
    yield from _text(f"{path}.path", request.path, known)
    for name, text in request.headers.items():
        yield from _text(f"{path}.headers.{name}", text, known)
    if request.json is not msgspec.UNSET:
        yield from _document(f"{path}.json", request.json, known)
    for place, value in request.equals.items():
        yield from _place(f"{path}.equals", place)
        yield from _document(f"{path}.equals.{place}", value, known)
    for place in (*request.has, *request.capture.values(), *getattr(request, "collect", {}).values()):
        yield from _place(path, place)
    for name in request.capture.keys() & OWN_NAMES.keys():
        yield Problem(f"{path}.capture.{name}", "is a name that means something else", hint="choose another")
    for number, read in enumerate(request.reads):
        yield from _read(f"{path}.reads[{number}]", read, known)
    for number, write in enumerate(request.writes):
        yield from _write(f"{path}.writes[{number}]", write, {*known, "response"})
    if isinstance(request, Setup) and request.each == "once" and (request.capture or request.writes):
        yield Problem(path, "belongs to no user who could keep something", hint='write each = "user"')
    if request.signed_in < 1 and (request.capture or request.writes):
        yield Problem(f"{path}.signed_in", "must be 1 where something is captured or written")


def _read(path: str, read: Read, known: set[str]) -> Iterator[Problem]:
    names = {*known, "item"} if read.each else known
    yield from _text(f"{path}.fact", read.fact, names)
    yield from _place(f"{path}.at", read.at)
    if read.each:
        yield from _place(f"{path}.each", read.each)


def _write(path: str, write: Write, known: set[str]) -> Iterator[Problem]:
    yield from _text(f"{path}.fact", write.fact, known)
    given = {"set": write.set, "add": write.add, "remove": write.remove}
    given = {key: value for key, value in given.items() if value is not msgspec.UNSET}
    if len(given) != 1:
        yield Problem(path, "must have exactly one of set, add and remove")
    for key, value in given.items():
        yield from _document(f"{path}.{key}", value, known)


def _journeys(scenario: Scenario) -> Iterator[Problem]:
    for name, journey in scenario.journey.items():
        yield from _journey(f"journey.{name}", journey, scenario)
        if name in scenario.request:
            yield Problem(f"journey.{name}", "is the name of a request, too", hint="choose another name")
    weighted: tuple[Request | Journey, ...] = (*scenario.request.values(), *scenario.journey.values())
    weights = [each.weight for each in weighted]
    if not any(weights):
        yield Problem("request", "nothing has a weight", hint="[request.NAME] with a weight and a path")


def _journey(path: str, journey: Journey, scenario: Scenario) -> Iterator[Problem]:
    for step in journey.steps:
        request = scenario.request.get(step)
        if request is None:
            yield Problem(f"{path}.steps", f"there is no [request.{step}]", hint=_known(scenario.request))
        elif request.signed_in == 0:
            yield Problem(f"{path}.steps", f'"{step}" is signed_in = 0', hint="a journey is one user's")


def _marks(scenario: Scenario) -> Iterator[Problem]:
    marks = scenario.marks
    if marks is None:
        return
    yield from _request("marks.write", marks.write, {*OWN_NAMES, *scenario.draw, *_captured(scenario)})
    # It is made again when the load has ended, by nobody.
    yield from _request("marks.read", marks.read, {"run", "unique"})
    yield from _place("marks.at", marks.at)
    if "{unique}" not in marks.read.path:
        yield Problem("marks.read.path", "does not say which mark", hint="{unique} stands for it")
    if marks.write.method == "GET" or marks.read.method != "GET":
        yield Problem("marks", "must write what a GET reads", hint='write = { method = "POST", ... }')


def _session(scenario: Scenario) -> Iterator[Problem]:
    if scenario.session is not None:
        known = {*OWN_NAMES, *scenario.draw, *_captured(scenario)}
        yield from _request("session.open", scenario.session.open, known)
        yield from _request("session.check", scenario.session.check, known)


def _text(path: str, text: str, known: set[str]) -> Iterator[Problem]:
    yield from _names(path, lambda: Template(text).roots, known)


def _document(path: str, value: Any, known: set[str]) -> Iterator[Problem]:
    yield from _names(path, lambda: Document(value).roots, known)


def _names(path: str, roots: Callable[[], frozenset[str]], known: set[str]) -> Iterator[Problem]:
    try:
        unknown = sorted(roots() - known)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    for name in unknown:
        yield Problem(path, f"{{{name}}} has no value here", hint=_known(known))


def _place(path: str, place: str) -> Iterator[Problem]:
    try:
        Place(place)
    except ValueError as error:
        yield Problem(path, f'"{place}" {error}')


def _known(names: Iterable[str]) -> str:
    found = ", ".join(sorted(names))
    return f"known: {found}" if found else ""
