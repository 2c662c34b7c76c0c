"""The document between the two halves: it says where everything is, and holds no password."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from outgrow import endpoints
from outgrow.endpoints import Database, Endpoints, Node, Secrets, Shard
from outgrow.errors import Misuse, StateUnreadable
from outgrow.topology import parse

SECRETS = Secrets(application="ab" * 32, passwords={"*": "hunter2"})
FULL = """
stage = 2
[application]
name = "shop"
consistency = "strong"
secret = "tell-nobody-0123456789-0123456789"
environment = { API_KEY = "hunter2" }
[database]
url = "postgresql://me:hunt%2Fer2@db.internal:5432/app?sslmode=require"
migrations_url = "postgresql://owner:hunter3@db.internal/app"
pool = 7
statement_timeout = "1m"
checkout_timeout = "250ms"
durability = "normal"
max_lag = "2s"
replica_urls = ["postgresql://me:hunter5@replica.internal/app"]
[cache]
engine = "redis"
url = "redis://me:hunter6@cache.internal"
entries = 5
[queue]
workers = 3
[sessions]
engine = "redis"
url = "rediss://me:hunter4@redis.internal:6380/0"
idle_timeout = "30m"
lifetime = "2d"
size = 100
cookie = "__Host-s"
secure = "always"
same_site = "strict"
[telemetry]
metrics = "off"
access_log = false
otlp_endpoint = "http://127.0.0.1:4318"
trace_sample = 0.5
"""


def document(url: str = "postgresql://me@h/d") -> Endpoints:
    database = Database(engine="postgres", shards=(Shard("0", (Node("db", url),)),))
    return Endpoints(application="shop", stage="separate-database", database=database)


# --- Files -------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    endpoints.write(tmp_path / "endpoints.json", document())
    endpoints.write(tmp_path / "secrets.json", SECRETS)
    assert endpoints.read(tmp_path / "endpoints.json") == document()
    assert endpoints.read_secrets(tmp_path / "secrets.json") == SECRETS


def test_only_its_owner_may_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text("old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        endpoints.write(path, SECRETS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    endpoints.write(path, document())
    with path.open("rb") as reader:
        endpoints.write(path, msgspec.structs.replace(document(), epoch=2))
        assert msgspec.json.decode(reader.read(), type=Endpoints).epoch == 1, (
            "a reader keeps what it had opened"
        )
    assert endpoints.read(path).epoch == 2
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        endpoints.write(tmp_path / "folder", document())
    assert {each.name for each in tmp_path.iterdir()} == {"endpoints.json", "folder"}, (
        "nothing is left behind"
    )


def test_a_missing_file(tmp_path: Path) -> None:
    for reading in (endpoints.read, endpoints.read_secrets):
        with pytest.raises(Misuse, match="does not exist"):
            reading(tmp_path / "none.json")


GOOD = msgspec.json.encode(document()).decode()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        GOOD[:-5],
        GOOD.replace('"epoch":1', '"epoch":"one"'),
        GOOD.replace('"version":1', '"version":2'),
        GOOD.replace('"engine":"postgres"', '"engine":"oracle"'),
        GOOD.replace('"consistency":"session"', '"consistency":"sometimes"'),
        GOOD.replace(msgspec.json.encode(document().database.shards).decode(), "[]"),
        "\x00" * 100,
    ],
)
def test_a_damaged_document(tmp_path: Path, content: str) -> None:
    assert content != GOOD
    path = tmp_path / "endpoints.json"
    path.write_text(content)
    with pytest.raises(StateUnreadable, match=r"endpoints\.json") as caught:
        endpoints.read(path)
    assert caught.value.hint


@pytest.mark.parametrize("content", ["", "{}", '{"application": "abc"}', '{"application": 3}', "\xff"])
def test_damaged_secrets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(StateUnreadable, match=r"secrets\.json"):
        endpoints.read_secrets(path)


def test_a_newer_document_may_say_more(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(GOOD.replace('"version":1', '"version":1,"moon":"full"'))
    assert endpoints.read(path) == document()


# --- Passwords ---------------------------------------------------------------------------------------


def test_a_document_with_a_password_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="password") as caught:
        endpoints.write(tmp_path / "endpoints.json", document("postgresql://me:hunter2@h/d"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(Misuse, match="the URL of the cache holds a password"):
        shared = endpoints.Cache(engine="redis", url="redis://me:hunter2@h")
        endpoints.write(tmp_path / "endpoints.json", replace(document(), cache=shared))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "without", "password"),
    [
        ("postgresql://me:pw@h:5432/d?a=b", "postgresql://me@h:5432/d?a=b", "pw"),
        ("postgresql://me:p%40%3A%2F@h/d", "postgresql://me@h/d", "p@:/"),
        ("postgresql://:pw@h/d", "postgresql://@h/d", "pw"),
        ("postgresql://me:@h/d", "postgresql://me@h/d", None),
        ("postgresql://me:pw@h1:1,h2:2/d", "postgresql://me@h1:1,h2:2/d", "pw"),
        ("postgresql://me:pw@[::1]:5432/d", "postgresql://me@[::1]:5432/d", "pw"),
        ("postgresql://me@h:5432/d", "postgresql://me@h:5432/d", None),
        ("postgresql://h:5432/d", "postgresql://h:5432/d", None),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql", None),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db", None),
    ],
)
def test_a_url_and_its_password(url: str, without: str, password: str | None) -> None:
    assert endpoints.split_password(url) == (without, password)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_password_comes_out_of_a_url(password: str) -> None:
    topology = parse(f'database.url = "postgresql://me:{quote(password, safe="")}@h/d"')
    assert endpoints.passwords_of(topology) == {"*": password}
    made = endpoints.from_topology(topology, Path("/srv"))
    assert made.database.shards[0].nodes[0].url == "postgresql://me@h/d"


def test_no_secret_of_outgrow_toml_is_in_the_document() -> None:
    made = endpoints.from_topology(parse(FULL), Path("/srv"), secrets_file="/srv/secrets.json")
    text = msgspec.json.encode(made).decode() + repr(made)
    for secret in ("hunt", "er2", "hunter3", "hunter4", "hunter6", "tell-nobody", "API_KEY"):
        assert secret not in text


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in f"{SECRETS} {SECRETS!r}" and "abab" not in repr(SECRETS)


def test_every_password_has_its_role() -> None:
    assert endpoints.passwords_of(parse(FULL)) == {
        "*": "hunt/er2",
        "migrations": "hunter3",
        "sessions": "hunter4",
        "cache": "hunter6",
        "replica-1": "hunter5",
    }
    assert endpoints.passwords_of(parse("")) == {}


def test_a_secret_of_any_form_gives_a_key() -> None:
    made = endpoints.secrets_of("ü" * 32, {"*": "pw"})
    assert len(bytes.fromhex(made.application)) == 32
    assert made == endpoints.secrets_of("ü" * 32, {"*": "pw"}) != endpoints.secrets_of("u" * 32, {"*": "pw"})


# --- From a topology ---------------------------------------------------------------------------------


def test_everything_that_the_topology_says_is_in_the_document() -> None:
    made = endpoints.from_topology(parse(FULL), Path("/srv"), epoch=4, secrets_file="/srv/s.json")
    node = Node("db", "postgresql://me@db.internal:5432/app?sslmode=require")
    replica = Node("replica-1", "postgresql://me@replica.internal/app", "replica")
    assert made == Endpoints(
        epoch=4,
        application="shop",
        stage="separate-database",
        consistency="strong",
        database=Database(
            engine="postgres",
            shards=(Shard("0", (node, replica)),),
            pool=7,
            statement_timeout_s=60.0,
            checkout_timeout_s=0.25,
            durability="normal",
            replication="async",
            max_lag_s=2.0,
        ),
        cache=endpoints.Cache(engine="redis", url="redis://me@cache.internal", entries_max=5),
        queue=endpoints.Queue(engine="database", workers=3),
        sessions=endpoints.Sessions(
            engine="redis",
            url="rediss://me@redis.internal:6380/0",
            idle_timeout_s=1800.0,
            lifetime_s=172_800.0,
            size_bytes_max=100,
            cookie="__Host-s",
            secure="always",
            same_site="strict",
        ),
        telemetry=endpoints.Telemetry(
            metrics="off", access_log=False, otlp_endpoint="http://127.0.0.1:4318", trace_sample=0.5
        ),
        secrets_file="/srv/s.json",
    )


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("", False),
        ("stage = 2\napplication.workers = 2", True),
        ("stage = 4\napplication.servers = 1", False),
        ("stage = 4\napplication.servers = 1\nbalancer.pools.videos = 1", True),
    ],
)
def test_whether_caches_stand_side_by_side(text: str, several: bool) -> None:
    nodes = (Node("db", "postgresql://app@db/app"),)
    assert endpoints.from_topology(parse(text), Path("/srv"), nodes=nodes).cache.several is several


def test_defaults_are_the_same_on_both_sides() -> None:
    made = endpoints.from_topology(parse(""), Path("/srv"))
    node = Node("db", "sqlite:////srv/.outgrow/data/app.db")
    database = Database(engine="sqlite", shards=(Shard("0", (node,)),))
    assert made == Endpoints(application="app", stage="single-server", database=database)


def test_the_fleet_says_where_its_database_is() -> None:
    node = Node("db", "postgresql://app@127.7.0.1/app")
    made = endpoints.from_topology(parse("stage = 2"), Path("/srv"), nodes=(node,))
    assert made.database.shards[0].nodes == (node,)
    with pytest.raises(Misuse, match="needs a PostgreSQL") as caught:
        endpoints.from_topology(parse("stage = 2"), Path("/srv"))
    assert "url" in caught.value.hint


def test_a_pooler_is_the_fleets_or_what_the_url_says() -> None:
    def pooled(text: str, **fleet: Any) -> bool:
        return endpoints.from_topology(parse(text), Path("/srv"), **fleet).database.shards[0].nodes[0].pooled

    own = '[database]\nurl = "postgresql://app@h/app"\nmigrations_url = "postgresql://owner@h2/app"\n'
    assert pooled(f'{own}pooler = "pgbouncer"') and not pooled(own)
    node = Node("db", "postgresql://app@127.7.0.1/app")
    assert pooled("stage = 2", nodes=(replace(node, pooled=True),))
    assert not pooled('stage = 2\n[database]\npooler = "pgbouncer"', nodes=(node,)), "it may not run yet"


def test_the_fleet_says_where_its_replicas_are() -> None:
    nodes = (
        Node("db-1", "postgresql://app@127.7.0.1/app"),
        Node("db-2", "postgresql://app@127.7.0.2/app", "replica"),
    )
    text = 'stage = 5\ndatabase.replication = "sync"'
    made = endpoints.from_topology(parse(text), Path("/srv"), nodes=nodes)
    assert made.database.shards[0].nodes == nodes
    assert made.database.replication == "sync"
    alone = endpoints.from_topology(parse("stage = 2"), Path("/srv"), nodes=nodes[:1])
    assert alone.database.replication == "none"


@pytest.mark.parametrize("level", ["bounded(2s)", "pinned(1.5m)", "bounded(250ms)"])
def test_a_consistency_with_a_duration(tmp_path: Path, level: str) -> None:
    made = endpoints.from_topology(parse(f'application.consistency = "{level}"'), Path("/srv"))
    endpoints.write(tmp_path / "endpoints.json", made)
    assert endpoints.read(tmp_path / "endpoints.json").consistency == level


def test_the_fleet_says_where_its_sessions_are() -> None:
    made = endpoints.from_topology(
        parse('sessions.engine = "redis"'), Path("/srv"), sessions_url="redis://app@127.7.0.2:6379"
    )
    assert made.sessions == endpoints.Sessions(engine="redis", url="redis://app@127.7.0.2:6379")


def test_the_fleet_says_where_its_cache_is() -> None:
    made = endpoints.from_topology(
        parse("stage = 6"),
        Path("/srv"),
        nodes=(Node("db", "postgresql://app@127.7.0.1/app"),),
        cache_urls=["redis://app@127.7.0.3:6379"],
    )
    assert made.cache == endpoints.Cache(engine="redis", url="redis://app@127.7.0.3:6379", several=True)


# --- What a process finds ----------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OUTGROW_ENDPOINTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_named_document_comes_first(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "outgrow.toml").write_text("this is not read")
    monkeypatch.setenv("OUTGROW_ENDPOINTS", str(empty / "endpoints.json"))
    secrets_file = str(empty / "secrets.json")
    endpoints.write(secrets_file, SECRETS)
    endpoints.write(empty / "endpoints.json", document())
    with pytest.raises(StateUnreadable, match="secrets_file"):
        endpoints.discover()
    named = msgspec.structs.replace(document(), secrets_file=secrets_file)
    endpoints.write(empty / "endpoints.json", named)
    assert endpoints.discover() == (named, SECRETS)


def test_without_one_outgrow_toml_here_or_above(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "outgrow.toml").write_text(FULL)
    (empty / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(empty / "in" / "here")
    found, secrets = endpoints.discover()
    assert found == endpoints.from_topology(parse(FULL), empty)
    assert secrets.passwords == endpoints.passwords_of(parse(FULL))
    assert secrets == endpoints.secrets_of("tell-nobody-0123456789-0123456789", secrets.passwords)


def test_without_both(empty: Path) -> None:
    with pytest.raises(Misuse, match="OUTGROW_ENDPOINTS") as caught:
        endpoints.discover()
    assert "outgrow new" in caught.value.hint


def test_without_a_fleet_somebody_must_give_the_secret(empty: Path) -> None:
    (empty / "outgrow.toml").write_text("")
    with pytest.raises(Misuse, match=r"application\.secret") as caught:
        endpoints.discover()
    assert "APP_SECRET" in caught.value.hint
