"""The ladder: eleven stages in order, each whole; those that are built change a topology."""

from __future__ import annotations

import pytest

from outgrow import stages
from outgrow.errors import Misuse, NotBuiltYet
from outgrow.stages import LADDER, Stage
from outgrow.topology import STAGES, Topology, parse
from tests.support.source import ROOT, SOURCE

BUILT = {1, 2, 3, 4, 5, 6, 8}


def test_eleven_stages_in_order_under_the_names_of_the_topology() -> None:
    assert [stage.number for stage in LADDER] == list(range(1, 12))
    assert tuple(stage.name for stage in LADDER) == STAGES


def test_a_file_for_each_named_after_it() -> None:
    files = sorted(path.stem for path in (SOURCE / "stages").glob("s[0-9]*.py"))
    assert files == [f"s{stage.number:02}_{stage.name.replace('-', '_')}" for stage in LADDER]


@pytest.mark.parametrize("stage", LADDER, ids=lambda stage: stage.name)
def test_a_stage_is_whole(stage: Stage) -> None:
    assert stage.title and stage.promises
    for sentence in (stage.problem, stage.cost, *(promise.says for promise in stage.promises)):
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".")
    for phrase in (stage.adds, *(due.says for due in stage.due)):
        assert not phrase.endswith(".") and len(phrase) > 20
    assert bool(stage.due) == (stage.number > 1), "only the first is not waited for"


@pytest.mark.parametrize("stage", LADDER, ids=lambda stage: stage.name)
def test_a_stage_is_due_at_a_figure_that_can_be_measured(stage: Stage) -> None:
    for due in stage.due:
        assert due.measure.isidentifier() and due.measure.islower()
        assert due.minutes >= 0
        if due.measure.endswith("_share"):
            assert 0 < due.value < 1


@pytest.mark.parametrize(
    ("name", "measure", "comparison", "value"),
    [
        ("separate-database", "machine_cpu_share", ">", 0.7),
        ("scale-out", "machine_cpu_share", ">", 0.7),
        ("load-balancer", "application_servers", ">", 1),
        ("cache", "cache_hit_share", "<", 0.9),
    ],
)
def test_the_figures_that_the_field_knows(name: str, measure: str, comparison: str, value: float) -> None:
    (due,) = [each for each in stages.find(name).due if each.measure == measure]
    assert (due.comparison, due.value) == (comparison, value)


@pytest.mark.parametrize("stage", [LADDER[number - 1] for number in BUILT], ids=lambda stage: stage.name)
def test_every_promise_of_a_stage_that_is_built_has_its_proof(stage: Stage) -> None:
    assert stage.built
    for promise in stage.promises:
        assert promise.drill is not None, promise.says
        assert "\ndef test_" in _text(promise.drill) or "\nasync def test_" in _text(promise.drill)


def test_a_promise_of_a_stage_to_come_claims_no_proof() -> None:
    for stage in LADDER:
        if not stage.built:
            assert [promise.drill for promise in stage.promises] == [None] * len(stage.promises)


def _text(drill: str) -> str:
    path = ROOT / drill
    assert path.is_file(), f"{drill} is missing"
    return path.read_text()


# --- Finding and applying ----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", LADDER, ids=lambda stage: stage.name)
def test_a_stage_is_found_by_name_and_number(stage: Stage) -> None:
    assert stages.find(stage.name) is stages.find(stage.number) is stages.find(str(stage.number)) is stage


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ("seperate-database", 'did you mean "separate-database"?'),
        ("loadbalancer", 'did you mean "load-balancer"?'),
        ("Cache", 'did you mean "cache"?'),
        ("12", "1 to 11, or: single-server, "),
        (0, "1 to 11, or: "),
        ("", "1 to 11, or: "),
        ("02", "1 to 11, or: "),
    ],
)
def test_a_stage_that_does_not_exist(named: str | int, hint: str) -> None:
    for refused in (stages.find, lambda unknown: stages.apply(parse(""), unknown)):
        with pytest.raises(Misuse, match=f'there is no stage "{named}"') as caught:
            refused(named)
        assert hint in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("stage", LADDER, ids=lambda stage: stage.name)
def test_what_is_not_built_says_so(stage: Stage) -> None:
    if stage.number in BUILT:
        assert stages.apply(parse(""), stage.number).stage == stage.name
        return
    with pytest.raises(NotBuiltYet, match=f"stage {stage.number}, {stage.name}, is not built yet") as caught:
        stages.apply(parse(""), stage.name)
    assert caught.value.exit_code == 2
    assert caught.value.hint == (
        "built so far: 1 single-server, 2 separate-database, 3 scale-out, 4 load-balancer, 5 replication, "
        "6 cache, 8 stateless"
    )


OWN = """
[application]
name = "shop"
port = 8001
[database]
pool = 3
statement_timeout = "5s"
programs = "/opt/postgres/bin"
[cache]
entries = 5
"""


def test_to_stage_2() -> None:
    assert stages.apply(parse(""), 2) == parse("stage = 2")
    assert stages.apply(parse(OWN), "separate-database") == parse(f"stage = 2{OWN}")


def test_a_file_of_ones_own_stays_behind() -> None:
    assert stages.apply(parse('database.file = "my.db"'), 2) == parse("stage = 2")


def test_to_replication_and_back() -> None:
    for number in (2, 3, 4):
        grown = stages.apply(parse(f"stage = {number}{OWN}"), 5)
        assert grown == parse(f"stage = 5{OWN}") and grown.database.replicas == 2
        assert stages.apply(grown, number) == stages.apply(parse(f"stage = 4{OWN}"), number)
    asked = stages.apply(parse("stage = 2\ndatabase.replicas = 3"), 5)
    assert asked.database.replicas == 3
    assert stages.apply(parse("stage = 2\ndatabase.replicas = 3"), 4).database.replicas == 3
    own = 'stage = 2\ndatabase.url = "postgres://h/d"\ndatabase.replica_urls = ["postgres://r/d"]'
    assert stages.apply(parse(own), 5).database.replicas == 0
    assert stages.apply(stages.apply(parse("stage = 5"), 1), 5) == parse("stage = 5")


def test_back_to_stage_1() -> None:
    assert stages.apply(parse(f"stage = 2{OWN}"), 1) == parse(OWN)
    external = parse(
        'stage = 2\ndatabase.url = "postgres://h/d"\ndatabase.migrations_url = "postgres://o@h/d"'
    )
    assert stages.apply(external, 1) == parse("")


AS_MANY_REPLICAS = "database.replicas = 0"
AS_BEFORE = f'{AS_MANY_REPLICAS}\ncache.engine = "memory"'
"""Stage 8 does not bring what stages 5 and 6 do."""


def test_to_stage_6_and_back() -> None:
    for earlier in ("", "stage = 3", "stage = 4", 'stage = 4\ncache.engine = "off"'):
        assert stages.apply(parse(earlier), 6) == parse(f"stage = 6\n{AS_MANY_REPLICAS}")
    grown = stages.apply(parse("stage = 5"), 6)
    assert grown == parse("stage = 6") and (grown.cache.engine, grown.database.replicas) == ("redis", 2)
    assert stages.apply(grown, 5) == parse("stage = 5")
    assert stages.apply(parse("stage = 8"), 6) == parse('stage = 6\nsessions.engine = "database"')
    assert parse('stage = 6\ncache.engine = "off"').cache.engine == "off", "what the file says counts"
    own = parse('stage = 6\ncache.url = "redis://h"')
    assert stages.apply(own, 5).cache == own.cache, "a Redis of one's own stays what it is"


def test_to_stage_8_and_back() -> None:
    for earlier in ("", "stage = 3", "stage = 4", 'stage = 4\nsessions.engine = "database"'):
        assert stages.apply(parse(earlier), 8) == parse(f"stage = 8\n{AS_BEFORE}")
    assert stages.apply(parse("stage = 5"), 8) == parse('stage = 8\ncache.engine = "memory"')
    assert stages.apply(parse("stage = 6"), 8) == parse("stage = 8")
    assert stages.apply(parse("stage = 8"), 4) == parse('stage = 4\nsessions.engine = "database"')
    assert stages.apply(parse("stage = 8"), 2) == parse('stage = 2\nsessions.engine = "database"')
    assert parse('stage = 8\nsessions.engine = "off"').sessions.engine == "off", "what the file says counts"
    tuned = "stage = 4\nbalancer.layer = 4\napplication.servers = 5"
    wanted = f"{tuned.replace('stage = 4', 'stage = 8')}\n{AS_BEFORE}"
    assert stages.apply(parse(tuned), 8) == parse(wanted)


def test_a_redis_of_ones_own_stays_where_it_is() -> None:
    own = parse('stage = 8\nsessions.url = "redis://h"')
    assert stages.apply(own, 4).sessions == own.sessions


@pytest.mark.parametrize(
    "text",
    ["", OWN, "stage = 2", 'database.url = "postgres://h/d"', 'stage = 2\ndatabase.url = "postgres://h/d"'],
)
def test_a_stage_changes_nothing_where_it_is_already(text: str) -> None:
    topology: Topology = parse(text)
    assert stages.apply(topology, topology.stage) == topology
