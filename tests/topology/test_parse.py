"""outgrow.toml is read strictly: what is right becomes a Topology, what is wrong is told all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgrow.errors import Misuse, Problem, TopologyError
from outgrow.topology import STAGES, Topology, parse, parse_file
from outgrow.topology.lines import lines
from outgrow.topology.model import Application, Database
from outgrow.topology.parse import seconds
from outgrow.topology.rules import warnings

SECRET = "s" * 32


def problems(text: str, **environment: str) -> tuple[Problem, ...]:
    with pytest.raises(TopologyError) as caught:
        parse(text, environment=environment)
    assert caught.value.problems
    return caught.value.problems


def read(text: str) -> tuple[Problem, ...]:
    """What is wrong with a text; nothing when it is a Topology."""
    try:
        parse(text)
    except TopologyError as error:
        return error.problems
    return ()


def only_problem(text: str, **environment: str) -> Problem:
    (problem,) = problems(text, **environment)
    return problem


# --- What is right -----------------------------------------------------------------------------------


def test_an_empty_file_is_stage_1() -> None:
    topology = parse("")
    assert topology.stage == "single-server"
    assert topology.application == Application(servers=1)
    assert topology.database == Database(engine="sqlite", file=".outgrow/data/app.db", replicas=0)


def test_how_many_servers_a_stage_has() -> None:
    assert [parse(f"stage = {stage}").application.count for stage in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert [parse(f"stage = {stage}").balancer.layer for stage in (2, 3, 4)] == [7, 4, 7]
    assert parse("stage = 4\n[application]\nservers = 1").application.count == 1


def test_the_file_is_named_after_the_application() -> None:
    assert parse('[application]\nname = "shop"').database.file == ".outgrow/data/shop.db"
    assert parse('[database]\nfile = "here.db"').database.file == "here.db"


@pytest.mark.parametrize("number", range(1, len(STAGES) + 1))
def test_a_stage_by_name_and_by_number(number: int) -> None:
    name = STAGES[number - 1]
    assert parse(f"stage = {number}") == parse(f'stage = "{name}"')
    assert parse(f"stage = {number}").stage == name


def test_from_stage_2_on_and_with_a_url_the_database_is_postgresql() -> None:
    for text in ("stage = 2", "stage = 11", '[database]\nurl = "postgres://h/d"'):
        assert parse(text).database.engine == "postgres"
        assert parse(text).database.file is None


def test_variables_come_from_the_environment_given() -> None:
    text = '[application]\nsecret = "${A}${B}"\n[application.environment]\nLEVEL = "is ${C}"'
    application = parse(text, environment={"A": "a" * 20, "B": "b" * 20, "C": "${A}"}).application
    assert application.secret == "a" * 20 + "b" * 20
    assert application.environment == {"LEVEL": "is ${A}"}, "filled once"


def test_a_number_where_a_share_is_expected() -> None:
    assert parse("[telemetry]\ntrace_sample = 1").telemetry.trace_sample == 1.0


def test_another_port() -> None:
    topology = parse('stage = 2\n[application]\nname = "shop"')
    assert topology.with_port(9).application.port == 9
    assert topology.with_port(9).with_port(8000) == topology


@pytest.mark.parametrize(
    ("written", "meant"),
    [(30, 30.0), (0.5, 0.5), ("250ms", 0.25), ("30s", 30), ("5 m", 300), (" 1.5h ", 5400), ("1d", 86400)],
)
def test_durations(written: object, meant: float) -> None:
    assert seconds(written) == meant


@pytest.mark.parametrize("written", ["", "5", "5 minutes", "-5s", "s", "1e3s", "5s5s", True, None, [5]])
def test_what_is_no_duration(written: object) -> None:
    assert seconds(written) is None


# --- What is wrong -----------------------------------------------------------------------------------

MISTAKES = [
    # a text, the line, the path, and a part of what is told
    ("[database]\npool = true", 2, "database.pool", "must be a whole number from 1 to 1,000, not true"),
    ("[database]\npool = 1.0", 2, "database.pool", "must be a whole number from 1 to 1,000, not 1.0"),
    ("[database]\npool = 0", 2, "database.pool", "from 1 to 1,000, not 0"),
    ("[database]\n\n# none\npool = 1001", 4, "database.pool", "not 1001"),
    ("[cache]\nentries = 999999999999999999999999", 2, "cache.entries", "from 1 to 100,000,000"),
    ("[application]\nport = 2020-01-01", 2, "application.port", "not 2020-01-01"),
    ("application.port = [8000]", 1, "application.port", "not an array"),
    ("[application]\nhost = 1", 2, "application.host", "must be a text, not 1"),
    ('[application]\nhost = ""', 2, "application.host", "must be a text"),
    ('[application]\nname = "Shop"', 2, "application.name", 'must be a text like "shop", not "Shop"'),
    ('[application]\nname = "shop\\n"', 2, "application.name", 'not "shop\\n"'),
    ('[application]\nname = "pg_shop"', 2, "application.name", "keeps for itself"),
    ('[application]\nname = "postgres"', 2, "application.name", "keeps for itself"),
    ('[application]\napp = "app"', 2, "application.app", 'like "app:app", not "app"'),
    ('[application]\nconsistency = "sesion"', 2, "application.consistency", 'did you mean "session"?'),
    ('[application]\nconsistency = "bounded"', 2, "application.consistency", '"bounded(2s)"'),
    ("[application]\nenvironment = 3", 2, "application.environment", "must be a table, not 3"),
    ("[application]\nenvironment.A = 3", 2, "application.environment.A", "must be a text"),
    ('[application.environment]\n"a b" = "c"', 2, "application.environment.a b", "the name must be"),
    ("[telemetry]\naccess_log = 1", 2, "telemetry.access_log", "must be true or false, not 1"),
    ("[telemetry]\ntrace_sample = nan", 2, "telemetry.trace_sample", "must be a number from 0 to 1, not nan"),
    ("[telemetry]\ntrace_sample = inf", 2, "telemetry.trace_sample", "not inf"),
    (
        '[telemetry]\notlp_endpoint = "http://me:pw@host"',
        2,
        "telemetry.otlp_endpoint",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ),
    ('[database]\nstatement_timeout = "5 minutes"', 2, "database.statement_timeout", 'like "30s" or "5m"'),
    ("[database]\nstatement_timeout = 0", 2, "database.statement_timeout", "a duration"),
    ("[database]\nstatement_timeout = inf", 2, "database.statement_timeout", "not inf"),
    ("[database]\ncheckout_timeout = nan", 2, "database.checkout_timeout", "not nan"),
    ('[database]\ncheckout_timeout = "0.0001s"', 2, "database.checkout_timeout", 'from "1ms"'),
    ('[database]\ncheckout_timeout = "2d"', 2, "database.checkout_timeout", 'to "1d"'),
    ('[database]\nurl = "mysql://h/d"', 2, "database.url", 'like "postgresql://'),
    ("database = 3", 1, "database", "write [database] on a line of its own"),
    ("[[database]]\npool = 3", 1, "database", "must be a table, not an array"),
    ("[databse]\npool = 3", 1, "databse", 'did you mean "database"?'),
    ("[database]\npol = 3", 2, "database.pol", 'there is no such key in [database] (did you mean "pool"?)'),
    ("[cache]\nzzz = 3", 2, "cache.zzz", "known: engine, url, more_urls, nodes, entries, entries_mb"),
    ("port = 80", 1, "port", "it belongs in [application]"),
    ("[telemetry]\nengine = 80", 2, "telemetry.engine", "it belongs in [database] or [cache] or [queue]"),
    ("[cache]\nstage = 2", 2, "cache.stage", "it belongs at the top"),
    ('stage = "cach"', 1, "stage", 'there is no stage "cach" (did you mean "cache"?)'),
    ("stage = 0", 1, "stage", "there is no stage 0 (1 to 11, or a name: single-server"),
    ("stage = 12", 1, "stage", "there is no stage 12"),
    ("stage = true", 1, "stage", "there is no stage true"),
    ("stage = 1.0", 1, "stage", "there is no stage 1.0"),
    ("stage = [1]", 1, "stage", "there is no stage"),
    ("[balancer]\nlayer = 5", 2, "balancer.layer", "must be 4 or 7, not 5"),
    ('[balancer]\nlayer = "7"', 2, "balancer.layer", "must be 4 or 7"),
    ('[balancer]\nalgorithm = "least-conections"', 2, "balancer.algorithm", 'mean "least-connections"?'),
    ("[balancer]\nhealth = 3", 2, "balancer.health", "write [balancer.health] on a line of its own"),
    ("[balancer.health]\nchek = 3", 2, "balancer.health.chek", 'did you mean "check"?'),
    ("[balancer.health]\ninterval = 0", 2, "balancer.health.interval", "a duration from"),
    ("[balancer.health]\nfailures = 0", 2, "balancer.health.failures", "from 1 to 100, not 0"),
    ("[balancer]\nroutes = 3", 2, "balancer.routes", "write [[balancer.routes]] on a line of its own"),
    ("[balancer]\nroutes = [3]", 2, "balancer.routes.1", "must be a table, not 3"),
    ('[[balancer.routes]]\nmethods = "GET"', 2, "balancer.routes.1.methods", "must be an array"),
    (
        '[[balancer.routes]]\n\n[[balancer.routes]]\nmethods = ["GET", "POTS"]',
        4,
        "balancer.routes.2.methods.2",
        'did you mean "POST"?',
    ),
    ('[[balancer.routes]]\nprefix = "api"', 2, "balancer.routes.1.prefix", 'a text like "/api/videos"'),
    ('[[balancer.routes]]\nheader = "a b"', 2, "balancer.routes.1.header", 'a text like "X-Version: 2"'),
    ('[[balancer.routes]]\nhots = "a"', 2, "balancer.routes.1.hots", 'did you mean "host"?'),
    ("[balancer.pools]\nvideos = 0", 2, "balancer.pools.videos", "from 1 to 100, not 0"),
    ("[balancer.weights]\napp = 1", 2, "balancer.weights.app", 'must be a text like "app-1"'),
    ("[balancer.pools]\nBig = 1", 2, "balancer.pools.Big", "the name must be"),
    ('[application]\nhost = "${HOST}"', 2, "application.host", "no variable HOST (export HOST=...)"),
    ('[application]\nhost = "${}"', 2, "application.host", "names no variable"),
]


@pytest.mark.parametrize(("text", "line", "path", "told"), MISTAKES)
def test_a_mistake_has_its_line_its_path_and_a_way_out(text: str, line: int, path: str, told: str) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.path) == (line, path)
    assert told in str(problem)


OWN = '[database]\nurl = "postgresql://a@h/d"\n'

CONTRADICTIONS = [
    ('stage = 2\n[backup]\nmirror = "s3://bucket/prefix"', "backup.mirror", "directory, too"),
    (
        '[[balancer.routes]]\npool = "vidoes"\n[balancer.pools]\nvideos = 1',
        "balancer.routes.1.pool",
        '"videos"',
    ),
    ('[[balancer.routes]]\npool = "x"', "balancer.routes.1.pool", "write x = 1 under [balancer.pools]"),
    ("[balancer.pools]\napp = 1", "balancer.pools.app", "another name"),
    ('[balancer]\nlayer = 4\n[[balancer.routes]]\nprefix = "/a"', "balancer.routes", "layer = 7"),
    ("stage = 3\n[[balancer.routes]]\nprefix = '/a'", "balancer.routes", "layer = 7"),
    ("stage = 3\n[balancer]\nlayer = 7", "balancer.layer", "load-balancer"),
    ("[balancer.pools]\nballoon = 100\nvideos = 50", "balancer.pools", "smaller"),
    ("[balancer.pools]\nbalancer = 1", "balancer.pools.balancer", "another name"),
    ("[application]\nservers = 2", "application.servers", "outgrow grow"),
    ("stage = 2\n[application]\nservers = 2", "application.servers", "outgrow grow scale-out"),
    ("[balancer]\nlayer = 4\n[balancer.limits]\nrate = 5", "balancer.limits.rate", "layer = 7"),
    ('[balancer]\nlayer = 4\nalgorithm = "least-response-time"', "balancer.algorithm", "least-connections"),
    ("[balancer.limits]\nburst = 5", "balancer.limits.burst", "needs rate"),
    ('[balancer.tls]\nenabled = true\ncertificate = "c"', "balancer.tls.certificate", "neither"),
    (
        '[balancer.tls]\nenabled = false\ncertificate = "c"\nkey = "k"',
        "balancer.tls.enabled",
        "enabled = true",
    ),
    ("[autoscale]\nminimum = 11", "autoscale.minimum", "smaller"),
    ('[balancer]\nattempt_timeout = "60s"', "balancer.attempt_timeout", "shorter"),
    ('[database]\nengine = "postgres"', "database.engine", "separate-database"),
    ('stage = 2\n[database]\nengine = "sqlite"', "database.engine", "remove"),
    ('[database]\nengine = "sqlite"\nurl = "postgres://h/d"', "database.engine", "remove"),
    ('stage = 2\n[database]\nfile = "a.db"', "database.file", "PostgreSQL"),
    ('[database]\nfile = "a.db"\nurl = "postgres://h/d"', "database.file", "PostgreSQL"),
    ('stage = 2\n[database]\nmigrations_url = "postgres://h/d"', "database.migrations_url", "database.url"),
    (
        '[database]\npooler = "pgbouncer"\nurl = "postgres://h/d"',
        "database.pooler",
        "the database itself",
    ),
    ('[database]\nprograms = "/bin"\nurl = "postgres://h/d"', "database.programs", "database.url"),
    ('[database]\nurl = "postgres://h/d?password=x"', "database.url", "before the host"),
    (
        '[database]\nurl = "postgres://h/d"\nmigrations_url = "postgres://h/d?a=b&sslpassword=x"',
        "database.migrations_url",
        "before the host",
    ),
    ('[database]\nurl = "postgres://[0]/d"', "database.url", "an IPv6 address in brackets"),
    ('stage = 2\n[database]\nreplica_urls = ["postgres://r/d"]', "database.replica_urls", "replicas of"),
    ('[database]\nurl = "postgres://h/d"\nreplica_urls = ["postgres://h/d"]', "database.replica_urls", "url"),
    (
        '[database]\nurl = "postgres://h/d"\nreplica_urls = ["postgres://[0]/d"]',
        "database.replica_urls",
        "an IPv6 address in brackets",
    ),
    (
        '[database]\nurl = "postgres://h/d"\nreplica_urls = ["postgres://r/d?password=x"]',
        "database.replica_urls",
        "before the host",
    ),
    ("[database]\nreplicas = 1", "database.replicas", 'stage = "replication"'),
    ('[database]\nreplicas = 1\nurl = "postgres://h/d"', "database.replicas", "replica_urls"),
    ('stage = 5\n[database]\npooler = "pgbouncer"', "database.pooler", "remove the pooler"),
    ('[database]\nreplication = "sync"', "database.replication", 'stage = "replication"'),
    ('stage = 2\n[database]\nreplication = "sync"', "database.replication", "replicas = 2"),
    ('stage = 5\n[database]\nreplication = "sync"\nreplicas = 0', "database.replication", "replicas = 2"),
    ("stage = 5\n[database]\nsync_strict = true", "database.sync_strict", "nobody waits"),
    (
        'stage = 5\n[database]\nreplication = "sync"\nsync_timeout = "500ms"',
        "database.sync_timeout",
        "given up",
    ),
    ('[cache]\nurl = "redis://h"', "cache.url", 'engine = "redis"'),
    ('stage = 6\n[cache]\nurl = "redis://[0]"', "cache.url", "an IPv6 address in brackets"),
    ('stage = 6\n[cache]\nurl = "redis://h"\nmemory_mb = 9', "cache.memory_mb", "starts no server"),
    ('stage = 6\n[cache]\nurl = "redis://h"\neviction = "lfu"', "cache.eviction", "starts no server"),
    ('stage = 5\n[cache]\nfollow_changes = ["a"]', "cache.follow_changes", "`outgrow grow cache` first"),
    (
        '[cache]\nengine = "redis"\nurl = "redis://h"\nfollow_changes = ["a"]',
        "cache.follow_changes",
        f'write stage = "{STAGES[1]}"',
    ),
    (
        f'stage = 6\n{OWN}[cache]\nfollow_changes = ["a"]',
        "cache.follow_changes",
        "CREATE ROLE NAME LOGIN REPLICATION",
    ),
    (
        'stage = 6\n[cache]\nfollow_changes = ["a"]\nchanges_url = "postgresql://r@h/d"',
        "cache.changes_url",
        "has a role for that",
    ),
    (f'stage = 6\n{OWN}[cache]\nchanges_url = "postgresql://r@h/d"', "cache.changes_url", "name the tables"),
    ('[sessions]\nurl = "redis://h"', "sessions.url", 'engine = "redis"'),
    ('[sessions]\nengine = "redis"\nurl = "redis://h?password=x"', "sessions.url", "before the host"),
    ('[sessions]\nengine = "redis"\nurl = "redis://[0]"', "sessions.url", "an IPv6 address in brackets"),
    ('[sessions]\nsame_site = "none"', "sessions.same_site", 'secure = "always"'),
    ('[sessions]\ncookie = "__Host-s"', "sessions.cookie", 'secure = "always"'),
]


@pytest.mark.parametrize(("text", "path", "told"), CONTRADICTIONS)
def test_a_contradiction(text: str, path: str, told: str) -> None:
    problem = only_problem(text)
    assert problem.path == path and told in str(problem)
    assert problem.line == lines(text)[path]


SEVERAL = "stage = 4\n[balancer.pools]\nvideos = 2\n"


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (f'{SEVERAL}[sessions]\nengine = "memory"', True),
        ('[sessions]\nengine = "memory"', False),
        ('stage = 4\napplication.servers = 3\nsessions.engine = "memory"', True),
        ('application.workers = 2\nsessions.engine = "memory"', True),
        (f'{SEVERAL}[sessions]\nengine = "redis"', False),
        (f'{SEVERAL}[sessions]\nengine = "database"', False),
        (SEVERAL, False),
    ],
)
def test_sessions_in_memory_of_several_servers_are_a_warning(text: str, warned: bool) -> None:
    told = [str(problem) for problem in warnings(parse(text)) if problem.path == "sessions.engine"]
    assert [each.startswith("sessions.engine: with several servers") for each in told] == [True] * warned


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("stage = 4", True),
        ("application.workers = 2", True),
        ('stage = 4\ncache.engine = "off"', False),
        ("stage = 6", False),
        ("", False),
    ],
)
def test_a_cache_in_each_of_several_processes_is_a_warning(text: str, warned: bool) -> None:
    assert ("cache.engine" in [problem.path for problem in warnings(parse(text))]) is warned


def test_a_duration_that_may_be_absent_is_still_no_nonsense() -> None:
    assert only_problem('[autoscale]\np95 = "0x"').path == "autoscale.p95"


def test_a_contradiction_is_told_beside_other_mistakes() -> None:
    text = 'stage = 2\n[database]\nfile = "a.db"\npool = 0'
    assert [problem.path for problem in problems(text)] == ["database.file", "database.pool"]


def test_what_is_wrong_by_itself_contradicts_nothing() -> None:
    """With the stage misspelt nobody knows whether there is a PostgreSQL."""
    assert only_problem('stage = "separate"\n[database]\nengine = "postgres"').path == "stage"
    assert only_problem('[database]\nengine = "postgres"\nurl = 3').path == "database.url"


def test_every_mistake_at_once_in_the_order_of_the_file() -> None:
    text = """
stage = 77
[databse]
pool = 1
[application]
name = "A"
secret = "short"
environment = { A = 1, B = "${NOPE}" }
[database]
pool = "x"
statement_timeout = "soon"
"""
    found = problems(text)
    assert [(problem.line, problem.path) for problem in found] == [
        (2, "stage"),
        (3, "databse"),
        (6, "application.name"),
        (7, "application.secret"),
        (8, "application.environment.A"),
        (8, "application.environment.B"),
        (10, "database.pool"),
        (11, "database.statement_timeout"),
    ]
    with pytest.raises(TopologyError, match=r"^here\.toml: 8 mistakes\n") as caught:
        parse(text, source="here.toml")
    assert caught.value.exit_code == 2
    assert all(str(problem) in str(caught.value) for problem in found)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a = ", 1, "invalid value"),
        ("stage = 1\n[application\n", 2, "expected"),
        ('a = "x', 1, "unterminated string"),
        ("[cache]\nentries = 1\nentries = 2\n", 3, "cannot overwrite a value"),
        ('a = """\n\n', 3, "unterminated"),
        ("a = " + "[" * 5000, None, "recursion"),
        ("a = " + "1" * 5000, None, "limit"),
    ],
)
def test_broken_syntax(text: str, line: int | None, told: str) -> None:
    problem = only_problem(text)
    assert (problem.path, problem.line) == ("syntax", line)
    assert told in problem.message and "(" not in problem.message.removesuffix(")").partition("limit")[0]


# --- No secret in a message --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[application]\nsecret = "hunter2"',
        '[application]\nsecret = ["hunter2"]',
        '[application]\nsecret = "${PASSWORD}"',
        '[application]\nenvironment = { "A B" = "hunter2" }',
        '[application]\nname = "${PASSWORD}!"',
        '[database]\nurl = "mysql://me:hunter2@host/d"',
        '[database]\nurl = "postgres://me:hunter2/@host/d"',
        '[database]\nurl = "postgres://me:hunter2#@host/d"',
        '[database]\nurl = "postgres://me:hunter2?@host/d"',
        '[database]\nurl = "postgres:hunter2@host"',
        '[database]\nurl = "postgres://me:${PASSWORD}@@host/d"',
        '[database]\nmigrations_url = "postgres://me:hunter2@host:port/d"',
        '[database]\nurl = "postgres://host/d?password=hunter2"',
        '[database]\nurl = "postgres://h/d"\nreplica_urls = ["mysql://me:hunter2@host/d"]',
    ],
)
def test_a_mistake_in_a_secret_does_not_show_it(text: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(text, environment={"PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


# --- Files -------------------------------------------------------------------------------------------


def test_a_file_takes_variables_from_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "outgrow.toml"
    file.write_text('[application]\nsecret = "${OUTGROW_TEST_SECRET}"')
    monkeypatch.setenv("OUTGROW_TEST_SECRET", SECRET)
    assert parse_file(file).application.secret == SECRET
    with pytest.raises(TopologyError, match=r"outgrow\.toml"):
        parse_file(file, environment={})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="does not exist"):
        parse_file(tmp_path / "outgrow.toml")
    with pytest.raises(Misuse, match="cannot be read"):
        parse_file(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'stage = "\xe9"')
    with pytest.raises(Misuse, match="UTF-8"):
        parse_file(tmp_path / "latin.toml")


# --- Lines -------------------------------------------------------------------------------------------


def test_lines_are_those_of_statements_whatever_they_look_like() -> None:
    text = '''# [no.table]
a = 1
b.c = { d = 2 }  # e = 3

[ f . "g" ]
h = """
[not.a.table]
i = 4
"""  # """
j = [
  "k = 5",
]
[[l]]
m = \'\'\'n = 6\'\'\'
[[ l ]]
m = 2
'''
    assert lines(text) == {
        "a": 2, "b": 3, "b.c": 3, "b.c.d": 3, "f": 5, "f.g": 5, "f.g.h": 6, "f.g.j": 10,
        "l": 13, "l.1": 13, "l.1.m": 14, "l.2": 15, "l.2.m": 16,
    }  # fmt: skip
    assert lines(text.replace("\n", "\r\n")) == lines(text)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_topology_or_a_topology_error(text: str) -> None:
    read(text)


KEYS = st.sampled_from(
    ["stage", "application", "name", "environment", "pool", "statement_timeout", "x y", ""]
)
VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["${A}", "30s", "cache"])
)
TABLES = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*Topology.__struct_fields__, "x"]), TABLES))
def test_any_document_is_a_topology_or_a_topology_error(document: dict[str, object]) -> None:
    text = "\n".join(f'"{key}" = {as_toml(value)}' for key, value in document.items())
    assert all(problem.line for problem in read(text))


def as_toml(value: object) -> str:
    """A value in TOML's words."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return (
                '"'
                + "".join(f"\\U{ord(sign):08X}" for sign in value if not 0xD800 <= ord(sign) < 0xE000)
                + '"'
            )
        case list():
            return f"[{', '.join(map(as_toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{as_toml(key)} = {as_toml(each)}' for key, each in value.items())}}}"
    return str(value)


def test_replicas_come_with_their_stage_or_when_asked_for() -> None:
    def replicas(text: str) -> int | None:
        return parse(text).database.replicas

    assert [replicas(f"stage = {number}") for number in (1, 2, 4, 5)] == [0, 0, 0, 2]
    assert replicas("stage = 2\ndatabase.replicas = 3") == 3
    assert replicas("stage = 5\ndatabase.replicas = 0") == 0
    assert replicas('stage = 5\ndatabase.url = "postgres://h/d"') == 0
