"""reference.toml is schema, manual and test data in one; the JSON Schema says what the parser says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgrow.topology import parse
from outgrow.topology.lines import lines
from outgrow.topology.model import Route, Section
from outgrow.topology.rules import NO_POOL, RULES
from outgrow.topology.schema import json_schema
from tests.topology.test_parse import CONTRADICTIONS, MISTAKES, as_toml, read

REFERENCE = resources.files("outgrow.topology").joinpath("reference.toml").read_text()
UNCOMMENTED = re.sub(r"^# (\w+ = )", r"\1", REFERENCE, flags=re.MULTILINE)
ENVIRONMENT = {"APP_SECRET": "s" * 32, "DATABASE_PASSWORD": "d", "OWNER_PASSWORD": "o"}
ACCEPTS = jsonschema.Draft202012Validator(json_schema()).is_valid


TABLES = ("application.environment", "balancer.pools", "balancer.weights")
"""Whose keys are the author's own."""

DURATIONS = "must be a duration"
"""The schema knows the form of one written as a text, and not its bounds."""


def keys(section: Section, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of the model with its default."""
    for name in section.__struct_fields__:
        value, place = getattr(section, name), f"{path}.{name}".lstrip(".")
        if isinstance(value, Section):
            yield from keys(value, place)
        else:
            yield place, value


def written(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of a document with its value."""
    for name, value in table.items():
        place = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict) and place not in TABLES:
            yield from written(value, place)
        else:
            yield place, value


DEFAULTS = dict(keys(parse("")))
DOCUMENTED = dict(written(tomllib.loads(UNCOMMENTED)))


def test_it_can_be_used_as_it_is() -> None:
    topology = parse(REFERENCE, environment=ENVIRONMENT)
    assert topology.application.migrations == "migrations"


def test_it_has_every_key_of_the_model_and_no_other() -> None:
    assert list(DOCUMENTED) == list(DEFAULTS)


@pytest.mark.parametrize(
    "path", [path for path, default in DEFAULTS.items() if default not in (None, {}, ())]
)
def test_a_key_with_a_default_shows_it(path: str) -> None:
    assert f"\n{path.rpartition('.')[2]} = " in f"\n{REFERENCE}", "not commented out"
    section, _, key = path.rpartition(".")
    alone = f"[{section}]\n{key}" if section else key
    assert parse(f"{alone} = {as_toml(DOCUMENTED[path])}") == parse("")


@pytest.mark.parametrize("path", [path for path, default in DEFAULTS.items() if default in (None, {}, ())])
def test_a_key_without_one_says_what_holds_when_it_is_absent(path: str) -> None:
    above = UNCOMMENTED.splitlines()[: lines(UNCOMMENTED)[path] - 1]
    comment = ""
    while above and above[-1].startswith("#"):
        comment = f"{above.pop()} {comment}"
    assert "Absent: " in comment


def test_the_balancer_of_the_reference_is_right_where_it_is_commented_out() -> None:
    for path, value in DOCUMENTED.items():
        if path.startswith("balancer.") and path not in (*TABLES, "balancer.routes"):
            beside = {"balancer.limits.burst": "rate = 1\n", "balancer.tls.key": 'certificate = "c"\n'}
            section, _, key = path.rpartition(".")
            text = f"[{section}]\n{beside.get(path, '')}{key} = {as_toml(value)}\n"
            if path.startswith("balancer.tls."):
                text = text.replace(section + "]\n", section + "]\nenabled = true\n").replace(
                    "enabled = false\n", ""
                )
            if path == "balancer.tls.certificate":
                text += 'key = "k"\n'
            assert read(text) == (), path


def test_the_routes_of_the_reference() -> None:
    assert set(DOCUMENTED["balancer.routes"][0]) == set(Route.__struct_fields__)
    (route,) = parse(REFERENCE, environment=ENVIRONMENT).balancer.routes
    assert (route.pool, route.prefix, route.methods) == ("videos", "/api/videos", ("GET", "HEAD"))


def test_what_is_commented_out_is_right_too() -> None:
    own = {"database.url", "database.migrations_url"}
    sessions = f'sessions.engine = "redis"\nsessions.url = "{DOCUMENTED["sessions.url"]}"'
    assert parse(sessions, environment={"REDIS_PASSWORD": "r"}).sessions.url
    cache = f'cache.engine = "redis"\ncache.url = "{DOCUMENTED["cache.url"]}"'
    assert parse(cache, environment={"REDIS_PASSWORD": "r"}).cache.url
    for line in ("engine", "file", "programs"):
        assert f"database.{line}" in DOCUMENTED
    database = "\n".join(f"{path} = {as_toml(DOCUMENTED[path])}" for path in sorted(own))
    assert parse(database, environment=ENVIRONMENT).database.engine == "postgres"
    programs = f'stage = 2\ndatabase.programs = "{DOCUMENTED["database.programs"]}"'
    assert parse(programs).database.programs == DOCUMENTED["database.programs"]
    endpoint = f'telemetry.otlp_endpoint = "{DOCUMENTED["telemetry.otlp_endpoint"]}"'
    assert parse(endpoint).telemetry.otlp_endpoint == DOCUMENTED["telemetry.otlp_endpoint"]


def test_every_key_has_a_comment() -> None:
    previous = ""
    for line in UNCOMMENTED.splitlines():
        if re.match(r"\w+ = ", line) and not line.startswith(("LOG_LEVEL", "videos")):
            assert previous.startswith("# "), line
        previous = line


# --- The JSON Schema ---------------------------------------------------------------------------------


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_schema_accepts_the_reference() -> None:
    assert ACCEPTS(tomllib.loads(REFERENCE))
    assert ACCEPTS(tomllib.loads(UNCOMMENTED))


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    tables = [schema, *(each for name, each in schema["$defs"].items() if name != "Variable")]
    for table in tables:
        assert table["additionalProperties"] is False
        for name, key in table["properties"].items():
            assert "description" in key or "$ref" in key, name
            assert "null" not in str(key) and "None" not in str(key), name


ONLY_THE_PARSER_KNOWS = (
    "1.0",  # JSON does not tell 1.0 from 1
    "nan",  # nor has it this
    "pg_shop",
    '"postgres"',
    "0.0001s",  # the bounds of a duration that is a text
    "2d",
    "${",  # what a variable holds
)


@pytest.mark.parametrize(
    "text", [text for text, *_ in MISTAKES if not any(each in text for each in ONLY_THE_PARSER_KNOWS)]
)
def test_the_schema_rejects_what_the_parser_rejects(text: str) -> None:
    assert not ACCEPTS(tomllib.loads(text))


@pytest.mark.parametrize("text", [text for text, *_ in CONTRADICTIONS])
def test_contradictions_are_told_by_the_parser_alone(text: str) -> None:
    assert ACCEPTS(tomllib.loads(text))


def tables(properties: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with some of these keys, mostly of the right kind and often within the bounds."""
    return st.fixed_dictionaries(
        {}, optional={name: values(key, definitions) for name, key in properties.items()}
    )


def values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return tables(definitions[schema["$ref"].rpartition("/")[2]]["properties"], definitions)
    kind = schema["anyOf"][0] if "anyOf" in schema else schema
    if "enum" in kind:
        return st.sampled_from([*kind["enum"], "none"])
    if kind["type"] == "array":
        return st.lists(values(kind["items"], definitions), max_size=2)
    if kind["type"] == "object":
        entries = values(kind["additionalProperties"], definitions)
        return st.dictionaries(st.text("Aa_1 ", max_size=3), entries, max_size=2)
    by_type: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-1, 70_000),
        "number": st.floats(-0.5, 1.5),
        "boolean": st.booleans(),
    }
    if kind["type"] == ["number", "string"]:
        return st.floats(-1, 90_000) | st.from_regex(r"\A[0-9]{1,3}(\.[0-9])? ?(ms|s|m|h|d|x)\Z")
    if kind["type"] != "string":
        return by_type[kind["type"]]
    return st.from_regex(kind["pattern"]) if "pattern" in kind else st.text("ab/", max_size=40)


SCHEMA = json_schema()


TOLD_BY_THE_PARSER_ALONE = {NO_POOL, *(rule.message for rule in RULES)}


@settings(deadline=None)
@given(tables(SCHEMA["properties"], SCHEMA["$defs"]))
def test_the_schema_and_the_parser_agree(document: dict[str, Any]) -> None:
    problems = read("\n".join(f"{key} = {as_toml(value)}" for key, value in document.items()))
    wrong_by_itself = [
        problem
        for problem in problems
        if problem.message not in TOLD_BY_THE_PARSER_ALONE and not problem.message.startswith(DURATIONS)
    ]
    if problems:
        assert not (wrong_by_itself and ACCEPTS(document))
    else:
        assert ACCEPTS(document)
