"""What there is to restore from: which copy for which moment, and what nobody needs any more."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.backups import history
from outgrow.backups.examining import examine
from outgrow.backups.fetch import fetch
from outgrow.backups.history import Copy, History
from outgrow.backups.keeper import Lateness
from outgrow.cluster.status import Backups, judged
from outgrow.engines.backup import folder
from outgrow.engines.postgres.archive import Archived
from outgrow.errors import Misuse, StateUnreadable, TopologyError, VerificationFailed
from outgrow.topology import parse

HOUR = 3600.0


def copy(ended: float, first: str = "000000010000000000000003") -> Copy:
    return Copy(f"{ended:.0f}", ended - 10, ended, 100, first)


def kept(line: History, *copies: Copy) -> History:
    """With these copies on the disk."""
    for each in copies:
        line.place(each.name).mkdir()
        history.write(line.place(each.name) / "copy.json", each)
    return line


def begun(line: History, moment: float) -> History:
    """As if it had begun then."""
    about = history.About(line.about.system, moment)
    history.write(line.folder / "history.json", about)
    return History(line.folder, about)


def test_a_database_goes_on_with_its_own_line(tmp_path: Path) -> None:
    first = history.current(tmp_path, "7")
    assert history.current(tmp_path, "7") == first
    second = history.current(tmp_path, "8")
    assert second.folder.name == "0002", "another database"
    third = history.begin(tmp_path, "8")
    assert history.current(tmp_path, "8") == third
    assert history.current(tmp_path, "7").folder.name == "0004", "an old line is never continued"


def test_which_copy_for_which_moment(tmp_path: Path) -> None:
    old = begun(kept(history.begin(tmp_path, "7"), copy(200), copy(300)), 100)
    new = begun(kept(history.begin(tmp_path, "7"), copy(500)), 400)
    known = history.histories(tmp_path)
    for moment, line, ended in (
        (250, old, 200),
        (300, old, 300),
        (399, old, 300),
        (500, new, 500),
        (None, new, 500),
    ):
        found, chosen = history.chosen(known, moment)
        assert (found.folder, chosen.ended) == (line.folder, ended)
    for moment in (50, 150, 450):
        with pytest.raises(Misuse, match="nothing can be restored"):
            history.chosen(known, moment)
    with pytest.raises(Misuse, match="there is no copy"):
        history.chosen([], None)


@given(st.lists(st.integers(0, 1000), unique=True, max_size=12), st.integers(0, 1000), st.integers(0, 1000))
def test_every_moment_that_is_kept_can_be_restored(ended: list[int], since: int, later: int) -> None:
    copies = [copy(float(each)) for each in sorted(ended)]
    gone = history.spare(copies, float(since))
    left = [each for each in copies if each not in gone]
    moment = since + later
    could = [each for each in copies if each.ended <= moment]
    assert [each for each in left if each.ended <= moment][-1:] == could[-1:]
    assert all(each.ended > since for each in left[1:]), "and no more is kept"


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    now = time.time()
    gone = begun(kept(history.begin(tmp_path, "7"), copy(now - 90 * HOUR)), now - 99 * HOUR)
    still = begun(kept(history.begin(tmp_path, "7"), copy(now - 60 * HOUR)), now - 70 * HOUR)
    newest = kept(history.begin(tmp_path, "7"), *(copy(now - hours * HOUR) for hours in (50, 30, 20, 1)))
    begun(newest, now - 55 * HOUR)
    assert list(history.tidy(tmp_path, 56 * HOUR)) == ["history 0001"]
    assert not gone.folder.exists() and still.folder.exists()
    assert list(history.tidy(tmp_path, 24 * HOUR)) == ["history 0002", f"copy {copy(now - 50 * HOUR).name}"]
    assert [each.ended for each in newest.copies()] == [now - hours * HOUR for hours in (30, 20, 1)]


def test_the_file_of_a_position() -> None:
    assert history.segment(1, "0/3000028") == "000000010000000000000003"
    assert history.segment(2, "A/FF000000") == "000000020000000A000000FF"


def test_damaged_notes_are_told(tmp_path: Path) -> None:
    line = kept(history.begin(tmp_path, "7"), copy(1))
    (line.place("1") / "copy.json").write_text("{")
    with pytest.raises(StateUnreadable, match=r"copy\.json"):
        line.copies()


def a_copy(place: Path, *, content: bytes = b"data", extra: str = "") -> None:
    """An archive and its manifest, as PostgreSQL writes them."""
    names = ["PG_VERSION", *filter(None, [extra])]
    with tarfile.open(place / "base.tar.gz", "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    checksum = hashlib.sha256(b"data").hexdigest()
    files = msgspec.json.encode([{"Path": "PG_VERSION", "Size": 4, "Checksum": checksum}])
    said = b'{"Files": ' + files + b",\n"
    whole = said + b'"Manifest-Checksum": "' + hashlib.sha256(said).hexdigest().encode() + b'"}\n'
    (place / "backup_manifest").write_bytes(whole)


def test_a_copy_is_examined(tmp_path: Path) -> None:
    a_copy(tmp_path)
    examine(tmp_path)
    a_copy(tmp_path, content=b"dAta")
    with pytest.raises(VerificationFailed, match="PG_VERSION is damaged"):
        examine(tmp_path)
    a_copy(tmp_path, extra="stranger")
    with pytest.raises(VerificationFailed, match="stranger does not belong"):
        examine(tmp_path)
    a_copy(tmp_path)
    with tarfile.open(tmp_path / "base.tar.gz", "w:gz"):
        pass
    with pytest.raises(VerificationFailed, match="PG_VERSION is missing"):
        examine(tmp_path)
    manifest = tmp_path / "backup_manifest"
    manifest.write_bytes(manifest.read_bytes().replace(b'"Size":4', b'"Size":5'))
    with pytest.raises(VerificationFailed, match="manifest is damaged"):
        examine(tmp_path)


def test_a_file_of_the_log_is_fetched_also_the_newest(tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert not fetch(tmp_path, "a", target)
    (tmp_path / "a.partial").write_bytes(b"partly")
    assert fetch(tmp_path, "a", target) and target.read_bytes() == b"partly"
    (tmp_path / "a").write_bytes(b"whole")
    assert fetch(tmp_path, "a", target) and target.read_bytes() == b"whole"


def test_half_a_copy_is_none(tmp_path: Path) -> None:
    line = kept(history.begin(tmp_path, "7"), copy(1))
    (line.folder / "copies" / ".x.unfinished").mkdir()
    history.write(line.folder / "copies" / ".x.unfinished" / "copy.json", copy(2))
    assert [each.name for each in line.copies()] == ["1"]


def test_a_busy_database_is_not_called_late() -> None:
    late = Lateness(0)
    for second in range(1, 100):
        late.look(Archived(connected=True, written=1000 * second, kept=1000 * second - 500), second)
    assert late.seconds(99) == 1, "it has what was written a second ago, always"
    for second in range(100, 160):
        late.look(Archived(connected=True, written=1000 * second, kept=99_000), second)
    assert late.seconds(159) == 60
    late.look(Archived(connected=False, written=0, kept=None), 160)
    assert late.seconds(160) == 61
    late.look(Archived(connected=True, written=200_000, kept=200_000), 161)
    assert late.seconds(161) == 0


def test_a_folder_that_would_be_lost_with_the_data_is_refused(tmp_path: Path) -> None:
    for inside in ("backups", ".", str(tmp_path / "shop" / "backups")):
        topology = parse(f'stage = 2\n[backup]\ndirectory = "{inside}"')
        with pytest.raises(Misuse, match="would be lost"):
            folder(topology, tmp_path / "shop")
    beside = parse('stage = 2\n[application]\nname = "shop"\n[backup]\ndirectory = "../backups"')
    assert folder(beside, tmp_path / "shop") == tmp_path / "backups" / "shop"
    for wrong in (".outgrow/backups", "a/../.outgrow"):
        with pytest.raises(TopologyError, match="lost with it"):
            parse(f'stage = 2\n[backup]\ndirectory = "{wrong}"')


def test_what_is_told() -> None:
    fine = Backups(at=1000, connected=True, behind=0, behind_s=1, copies=1)
    assert judged(fine, 60, 1001) == fine
    for changed, told in (
        ({"behind": 5000, "behind_s": 61}, "61 s behind (5,000 bytes)"),
        ({"connected": False, "behind_s": 61}, "nobody reads"),
        ({"failure": "no room"}, "no room"),
        ({"at": 900}, "nobody has looked"),
    ):
        [wrong] = judged(msgspec.structs.replace(fine, **changed), 60, 1001).wrong
        assert told in wrong


def test_two_that_begin_at_once_begin_one_line(tmp_path: Path) -> None:
    barrier = Barrier(2)

    def begin(folder: Path) -> str:
        barrier.wait(10)
        return history.current(folder, "a database").folder.name

    with ThreadPoolExecutor(2) as threads:
        for number in range(100):
            assert set(threads.map(begin, [tmp_path / str(number)] * 2)) == {"0001"}
            assert len(history.histories(tmp_path / str(number))) == 1
