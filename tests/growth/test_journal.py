"""The journal survives a crash at any line; the lock says who, and why; the stage is the one line changed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow import stages
from outgrow.cluster import control
from outgrow.cluster.state import State
from outgrow.errors import FleetError, Misuse, StateUnreadable
from outgrow.growth import journal as journals
from outgrow.growth import settings
from outgrow.growth.journal import Journal
from outgrow.growth.plan import move_between, named
from outgrow.growth.unfinished import unfinished
from outgrow.topology import parse

ONE = parse('stage = "single-server"\n[application]\nsecret = "01234567890123456789012345678901"\n')
TWO = stages.apply(ONE, "separate-database")


def begun(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.begin("sqlite-to-postgres", ONE, TWO)
    return journal


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.add("applying", "copy", kept={"mark": 1})
    journal.add("applying", "copy", kept={"mark": 7})
    journal.add("failed", "copy", "the disk is full")
    again = Journal(tmp_path)
    assert again.open and again.begun.move == "sqlite-to-postgres" and again.kept == {"mark": 7}
    assert again.state_of("copy") == "failed" and again.state_of("verify") is None
    assert again.last_failure() == "the disk is full"
    assert again.begun.after == control.bare(TWO)
    assert "0123456789" not in (tmp_path / "journal.jsonl").read_text(), "no secret is written down"
    with pytest.raises(Misuse, match="is not finished: the disk is full"):
        journals.require_none(again)


def test_a_crash_at_any_byte(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.add("applying", "copy")
    journal.add("done", "copy")
    whole = (tmp_path / "journal.jsonl").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        left = Journal(folder)
        assert len(left.entries) == sum(end <= cut for end in ends)
        if left.open:
            left.add("applying", "verify")
        else:
            left.begin("sqlite-to-postgres", ONE, TWO)
        again = Journal(folder)
        assert [entry.event for entry in again.entries] == [entry.event for entry in left.entries]


def test_a_damaged_line_is_not_passed_over(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.add("done", "copy")
    file = tmp_path / "journal.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"done"', b'"dome"'))
    with pytest.raises(StateUnreadable, match="line 2"):
        Journal(tmp_path)


def test_the_end_leaves_an_audit_line_and_a_history(tmp_path: Path) -> None:
    begun(tmp_path).end("undone")
    assert not Journal(tmp_path).open
    [line] = (tmp_path / "audit.jsonl").read_text().splitlines()
    audit = msgspec.json.decode(line)
    assert (audit["from"], audit["to"], audit["outcome"]) == ("single-server", "separate-database", "undone")
    assert "process" in audit["who"] and audit["ended"] >= audit["began"]
    assert len(list((tmp_path / "history").iterdir())) == 1


def test_two_at_once(tmp_path: Path) -> None:
    with journals.locked(tmp_path, "growing from one to two"):
        told = pytest.raises(FleetError, match=r"being changed: .*process \d+: growing from one to two")
        with told, journals.locked(tmp_path, "resuming"):
            raise AssertionError
    with journals.locked(tmp_path, "resuming"):
        assert "resuming" in (tmp_path / "lock").read_text()


def test_which_move() -> None:
    assert move_between(ONE, TWO).name == "sqlite-to-postgres"
    assert move_between(TWO, ONE).name == "postgres-to-sqlite"
    assert named("sqlite-to-postgres").fits(ONE, TWO)
    with pytest.raises(Misuse, match="at stage separate-database already"):
        move_between(TWO, TWO)
    with pytest.raises(Misuse, match="knows no move 'to-the-moon'"):
        named("to-the-moon")
    own = parse('stage = "separate-database"\n[database]\nurl = "postgresql://a@b/c"\n')
    with pytest.raises(Misuse, match="PostgreSQL of your own"):
        move_between(ONE, own)


def test_the_cache_is_a_move_of_its_own() -> None:
    for earlier in ("separate-database", "scale-out", "load-balancer", "replication"):
        before = stages.apply(ONE, earlier)
        cached = stages.apply(before, "cache")
        assert move_between(before, cached).name == move_between(cached, before).name == "move-cache"
    stateless = stages.apply(stages.apply(TWO, "cache"), "stateless")
    assert move_between(stages.apply(stateless, "cache"), stateless).name == "move-sessions"
    with pytest.raises(Misuse, match="more than one move: sessions and cache") as caught:
        move_between(stateless, stages.apply(stateless, "load-balancer"))
    assert "one stage at a time" in caught.value.hint
    own = parse('stage = "cache"\n[cache]\nurl = "redis://h"\n')
    with pytest.raises(Misuse, match="no live move"):
        move_between(stages.apply(TWO, "replication"), own)


LINES = st.lists(
    st.sampled_from(
        (
            "# a comment with stage = 2 in it",
            "",
            "   # stage",
            'x.y = "stage = 3"',
            '[application] # stage = "no"',
            "[a.b]",
            "[[c]]",
            'stages = "two"',
        )
    ),
    max_size=6,
)
STAGES = st.sampled_from(
    ("stage = 1", "stage='one'", '  stage   = "one"   # which', '"stage" = "one"', "'stage'=\"one\"\t#")
)


@given(LINES, st.none() | STAGES, LINES)
def test_the_stage_alone_is_changed(before: list[str], line: str | None, after: list[str]) -> None:
    text = "\n".join([*before, *([line] if line else []), *after]) + "\n"
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    if any("[" in each for each in before) and line is not None:
        return  # a stage of some section is not the stage
    changed = settings.with_values(text, {"stage": "two"})
    assert tomllib.loads(changed) == {**document, "stage": "two"}
    old, new = text.splitlines(), changed.splitlines()
    kept = new if line else new[1:]
    assert len(kept) == len(old) and sum(one != other for one, other in zip(old, kept, strict=True)) <= 1


def test_a_file_that_would_be_wrong_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "outgrow.toml"
    file.write_text('stage = "single-server"\n[database]\nfile = "mine.db"\n')
    with pytest.raises(Misuse, match="would be wrong"):
        settings.require_settable(file, {"stage": "separate-database"})
    file.write_text('# mine\nstage = "single-server" # now\n')
    file.chmod(0o640)
    settings.require_settable(file, {"stage": "separate-database"})
    settings.write(file, settings.with_values(file.read_text(), {"stage": "separate-database"}))
    assert file.read_text() == '# mine\nstage = "separate-database" # now\n'
    assert file.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["outgrow.toml"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[application]\nservers = 4\n"),
        ("stage = 4", "stage = 4\n\n[application]\nservers = 4\n"),
        ("[application]\nservers=2 # two\nport = 1\n", "[application]\nservers=4 # two\nport = 1\n"),
        (
            "[application] # mine\nname = 'a'\n\n# next\n[cache]\nservers = 9\n",
            "[application] # mine\nname = 'a'\nservers = 4\n\n# next\n[cache]\nservers = 9\n",
        ),
        (
            "[application.environment]\nservers = '1'\n[application]\n  servers = 2\n",
            "[application.environment]\nservers = '1'\n[application]\n  servers = 4\n",
        ),
    ],
)
def test_a_key_of_a_section_is_changed_where_it_stands(before: str, after: str) -> None:
    assert settings.with_values(before, {"application.servers": 4}) == after


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "outgrow.toml"
    file.write_text('stage = 4\napplication = { name = "a" }\n')
    with pytest.raises(Misuse):
        settings.require_settable(file, {"application.servers": 4})
    file.write_text("stage = 4\napplication.servers = 2\n")
    with pytest.raises(Misuse):
        settings.require_settable(file, {"application.servers": 4})
    file.write_text("stage = 2\n")
    with pytest.raises(Misuse, match="needs a balancer"):
        settings.require_settable(file, {"application.servers": 4})
    wanted: dict[str, settings.Value] = {
        "stage": "load-balancer",
        "application.servers": 4,
        "application.cpu": 0.5,
    }
    assert settings.require_settable(file, wanted).application.cpu == 0.5
    assert file.read_text() == "stage = 2\n"


def test_what_is_not_finished_is_told(tmp_path: Path) -> None:
    assert unfinished(tmp_path) is None
    folder = State(tmp_path).growth
    journal = begun(folder)
    journal.add("applying", "copy")
    journal.add("failed", "copy", "the disk is full")
    left = unfinished(tmp_path)
    assert left is not None and (left.before, left.after) == ("single-server", "separate-database")
    assert (left.step, left.event, left.failure) == ("copy", "failed", "the disk is full")
    assert left.worked_on_by is None and left.began <= left.since
    assert left.ways == ("outgrow grow --resume", "outgrow grow --undo")
    with journals.locked(folder, "resuming a growth"):
        left = unfinished(tmp_path)
        assert left is not None and left.worked_on_by == f"{journals.who()}: resuming a growth"
