"""The nodes' logs: appended to by the nodes, bounded by the supervisor, followed by a reader."""

from __future__ import annotations

import fcntl
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.cli.logfile import Follower, last_lines
from outgrow.supervisor import supervisor
from outgrow.supervisor.logs import Logs
from outgrow.workload import Workload
from tests.supervisor.conftest import PATIENCE_S, Supervised, eventually, python, shell

LIMIT = 2000


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs", size_max=LIMIT)


class Writer:
    """A node that goes on writing numbered lines into its log."""

    def __init__(self, logs: Logs, node: str = "app") -> None:
        self._log = logs.open(node)
        self.path = logs.path(node)
        self.written = 0

    def write(self, count: int) -> None:
        for _ in range(count):
            self.written += 1
            self._log.write(b"line %d\n" % self.written)

    def write_raw(self, text: bytes) -> None:
        self._log.write(text)

    @property
    def all(self) -> list[str]:
        return [f"line {number}" for number in range(1, self.written + 1)]


@pytest.fixture
def writer(logs: Logs) -> Iterator[Writer]:
    made = Writer(logs)
    yield made
    made._log.close()


def test_one_older_file_is_kept_and_the_node_writes_on(logs: Logs, writer: Writer) -> None:
    writer.write(100)
    logs.rotate()
    assert not writer.path.with_name("app.log.1").exists(), "it is small"
    writer.write(200)
    logs.rotate()
    older = writer.path.with_name("app.log.1")
    assert logs.size("app") == 0 and older.read_text().splitlines() == writer.all
    assert stat.S_IMODE(older.stat().st_mode) == 0o600
    writer.write(3)
    assert logs.tail("app", 2) == ["line 302", "line 303"]
    assert last_lines(writer.path, 5) == ["line 299", "line 300", "line 301", "line 302", "line 303"]
    assert sorted(path.name for path in logs.directory.iterdir()) == ["app.log", "app.log.1"]


def test_a_line_cut_in_two_by_the_rotation_is_read_whole(logs: Logs, writer: Writer) -> None:
    writer.write(300)
    follower = Follower(writer.path)
    writer.write_raw(b"half a ")
    assert follower.read() == []
    logs.rotate()
    writer.write_raw(b"line\nnext\n")
    assert last_lines(writer.path, 2) == ["half a line", "next"]
    assert last_lines(writer.path, 3) == ["line 300", "half a line", "next"]
    assert follower.read() == ["half a line", "next"]


@pytest.mark.parametrize("before", [0, 1, 150, 300])
@pytest.mark.parametrize("after", [0, 1, 299])
def test_a_follower_misses_nothing_over_a_rotation(
    logs: Logs, writer: Writer, before: int, after: int
) -> None:
    """Whatever it had read before, and however much comes after: also more than there was."""
    writer.write(before)
    follower = Follower(writer.path)
    seen = []
    for _ in range(3):
        writer.write(300)
        logs.rotate()
        writer.write(after)
        seen += follower.read()
    assert seen == writer.all[before:]
    assert follower.read() == []


def test_last_lines_and_follower_meet(logs: Logs, writer: Writer) -> None:
    writer.write(10)
    writer.write_raw(b"unfin")
    follower = Follower(writer.path)
    writer.write_raw(b"ished\n")
    assert last_lines(writer.path, 2, end=follower.begin) == ["line 9", "line 10"]
    assert follower.read() == ["unfinished"]
    assert last_lines(writer.path, 0) == [] and last_lines(writer.path, 1) == ["unfinished"]


def test_two_rotations_without_a_look(logs: Logs, writer: Writer) -> None:
    """What the first has copied is gone; what comes after it is read, as whole lines."""
    writer.write(10)
    follower = Follower(writer.path)
    for _ in range(2):
        writer.write(300)
        logs.rotate()
    writer.write(1)
    assert follower.read() == writer.all[-301:]


def test_cut_by_hand(logs: Logs, writer: Writer) -> None:
    writer.write(10)
    follower = Follower(writer.path)
    writer.path.write_bytes(b"")
    assert follower.read() == []
    writer.write(1)
    assert follower.read() == ["line 11"]


def test_no_rotation_while_somebody_looks_unless_he_never_ends(logs: Logs, writer: Writer) -> None:
    writer.write(300)
    with writer.path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        logs.rotate()
        assert logs.size("app") > LIMIT
        writer.write(300)
        logs.rotate()
        assert logs.size("app") == 0


def test_one_that_cannot_be_rotated_does_not_keep_the_others_from_it(logs: Logs, writer: Writer) -> None:
    writer.path.with_name("app.log.1").mkdir()
    other = Writer(logs, "db")
    writer.write(300)
    other.write(300)
    logs.rotate()
    assert logs.size("app") > LIMIT and logs.size("db") == 0
    other._log.close()


def test_the_tail_begins_with_this_life(logs: Logs, writer: Writer) -> None:
    writer.write(10)
    since = logs.size("app")
    assert logs.tail("app", 5, since=since) == []
    writer.write(1)
    assert logs.tail("app", 5, since=since) == ["line 11"]
    assert logs.tail("app", 5, since=10_000) == writer.all[-5:], "cut meanwhile"
    assert logs.tail("nobody", 5) == [] and logs.size("nobody") == 0


def test_a_follower_of_a_node_that_writes_all_the_time(tmp_path: Path) -> None:
    """Lines come in order and once; what is written in the moment of a cut may be lost, and only that."""
    logs, count = Logs(tmp_path, size_max=100_000), 60_000
    logs.path("app").touch()
    follower = Follower(logs.path("app"))
    seen: list[str] = []
    text = f"import os\nfor i in range({count}): os.write(1, b'line %d\\n' % i)"
    with logs.open("app") as log, subprocess.Popen(python(text), stdout=log) as node:
        while node.poll() is None:
            logs.rotate()
            seen += follower.read()
    seen += follower.read()
    whole = [int(line.removeprefix("line ")) for line in seen if re.fullmatch(r"line \d+", line)]
    assert logs.path("app").with_name("app.log.1").exists()
    assert whole == sorted(set(whole)) and len(whole) > count / 2


async def test_the_supervisor_bounds_them(
    fleet: Supervised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "ROTATE_EVERY_S", 0.02)
    fleet.logs._size_max = LIMIT
    done = tmp_path / "done"
    text = f"for i in $(seq 3000); do echo out $i; echo err $i >&2; done; touch {done}; exec sleep 1000"
    await fleet.start(Workload("app", shell(text)))
    await eventually(done.exists, "the lines")
    path = fleet.logs.path("app")
    await eventually(lambda: path.stat().st_size <= LIMIT, "the last rotation")
    assert path.with_name("app.log.1").stat().st_size > LIMIT
    deadline = time.monotonic() + PATIENCE_S
    while last_lines(path, 2) != ["out 3000", "err 3000"]:
        assert time.monotonic() < deadline
