"""The mirror of backups in a real S3-compatible store: all of it, and never at another archive's cost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.backups import history, mirror
from outgrow.backups.history import Copy
from outgrow.backups.mirror import Mirror
from outgrow.backups.s3 import Bucket
from outgrow.errors import FleetError, Misuse
from tests.support.s3 import S3Server

URL = "s3://backups/hello/archive"
AT = "hello/archive"
OLDER, NEWER = "000000010000000000000001", "000000010000000000000002"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path / "store")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive as the fleet makes it: a line with a copy, a whole file of the log and the newest one."""
    made = tmp_path / "archive"
    line = history.begin(made, "7712542848907776242")
    (line.wal / OLDER).write_bytes(os.urandom(1 << 20))
    newest(line.wal, b"as far as it is written")
    copy(made, "20261126T180522Z")
    return made


def newest(wal: Path, content: bytes) -> Path:
    path = wal / f"{NEWER}.partial"
    path.write_bytes(content.ljust(history.SEGMENT, b"\0"))
    return path


def copy(folder: Path, name: str) -> None:
    place = folder / "0001" / "copies" / name
    place.mkdir()
    (place / "base.tar.gz").write_bytes(os.urandom(12 << 20))
    history.write(place / "copy.json", Copy(name, 1.0, 2.0, 3, OLDER))


async def turn(folder: Path, bucket: Bucket) -> float:
    """Mirror all of it once; how far behind it is then."""
    both = [Mirror(folder, bucket, copies=copies) for copies in (False, True)]
    for each in both:
        await each.turn()
    return max(each.behind_s for each in both)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in mirror.here(folder)}


async def test_everything_is_there_and_comes_back(folder: Path, store: S3Server, tmp_path: Path) -> None:
    bucket = Bucket(URL, store.environment)
    unfinished = folder / "0001" / "copies" / ".20261126T190000Z.unfinished"
    unfinished.mkdir()
    (unfinished / "base.tar.gz").touch()
    (folder / "lock").touch()
    assert await turn(folder, bucket) < 5
    assert store.files() == {f"{AT}/{name}" for name in contents(folder)}
    assert (store.folder / AT / "0001/wal" / f"{NEWER}.partial").stat().st_size < 100, "and no zeros"
    back = tmp_path / "back"
    assert await mirror.fetch(bucket, back) > 13 << 20
    assert contents(back) == contents(folder)
    with pytest.raises(Misuse, match="has backups already"):
        await mirror.fetch(bucket, back)


async def test_what_goes_from_the_folder_goes_from_the_store(folder: Path, store: S3Server) -> None:
    bucket = Bucket(URL, store.environment)
    both = [Mirror(folder, bucket, copies=copies) for copies in (False, True)]
    for each in both:
        await each.turn()
    wal = folder / "0001" / "wal"
    newest(wal, b"some more").rename(wal / NEWER)
    (wal / OLDER).unlink()
    copy(folder, "20261127T180522Z")
    (store.folder / "another application's").write_text("stays")
    for each in both:
        await each.turn()
    assert {f"{AT}/{name}" for name in contents(folder)} | {"another application's"} == store.files()
    await turn(folder, bucket)
    assert {f"{AT}/{name}" for name in contents(folder)} | {"another application's"} == store.files()


async def test_a_store_that_was_away(folder: Path, store: S3Server) -> None:
    store.stop()
    bucket = Bucket(URL, store.environment)
    with pytest.raises(FleetError, match=URL):
        await turn(folder, bucket)
    store.start()
    await turn(folder, bucket)
    assert store.files() == {f"{AT}/{name}" for name in contents(folder)}


async def test_nothing_of_another_archive_is_touched(folder: Path, store: S3Server, tmp_path: Path) -> None:
    bucket = Bucket(URL, store.environment)
    await turn(folder, bucket)
    there = store.files()
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    history.begin(other, "another database")
    fewer = tmp_path / "fewer"
    history.begin(folder, "the same")  # and its second line is in the store
    await turn(folder, bucket)
    history.begin(fewer, "x")
    (fewer / "0001" / "history.json").write_bytes((folder / "0001" / "history.json").read_bytes())
    for wrong in (empty, other, fewer):
        for copies in (False, True):
            with pytest.raises(FleetError):
                await Mirror(wrong, bucket, copies=copies).turn()
    assert there < store.files()


async def test_keys_that_are_wrong_are_told_of_without_them(folder: Path, store: S3Server) -> None:
    wrong = {**store.environment, "AWS_SECRET_ACCESS_KEY": "of-somebody-else"}
    with pytest.raises(FleetError, match="SignatureDoesNotMatch") as caught:
        await turn(folder, Bucket(URL, wrong))
    for secret in (store.environment["AWS_ACCESS_KEY_ID"], "of-somebody-else"):
        assert secret not in str(caught.value)
