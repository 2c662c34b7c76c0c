"""Two hours by the second, which survive a restart, a torn row and a damaged file."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import pytest

from outgrow.advisor.history import History

NOW = 1_800_000_000


def filled(folder: Path, seconds: int = 30) -> History:
    history = History(folder)
    for i in range(seconds):
        history.append(NOW + i + 0.03, {"rate": float(i), "p99": i / 2})
    return history


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    history = filled(tmp_path)
    curves = history.read(["rate", "p99", "unknown"], since=NOW + 10, until=NOW + 14)
    assert (curves.since, curves.step_s) == (NOW + 10, 1)
    assert curves.series == {"rate": [10, 11, 12, 13, 14], "p99": [5, 5.5, 6, 6.5, 7]}


def test_a_second_without_a_look_is_unknown(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(NOW, {"rate": 1.0})
    history.append(NOW + 2, {"rate": 3.0, "p99": 1.0})
    curves = history.read(["rate", "p99"], since=NOW - 1, until=NOW + 3)
    assert curves.series == {"rate": [None, 1, None, 3, None], "p99": [None, None, None, 1, None]}


def test_steps_have_the_mean_or_the_highest(tmp_path: Path) -> None:
    history = filled(tmp_path)
    first = NOW // 10 * 10
    curves = history.read(["rate", "p99"], since=first, until=first + 19, step_s=10, worst=("p99",))
    assert curves.series["rate"] == [4.5, 14.5]
    assert curves.series["p99"] == [4.5, 9.5]


def test_it_survives_a_restart(tmp_path: Path) -> None:
    filled(tmp_path).close()
    again = History(tmp_path)
    again.append(NOW + 30, {"rate": 30.0})
    assert again.read(["rate"], since=NOW + 28, until=NOW + 30).series == {"rate": [28, 29, 30]}


def test_the_ring_holds_its_seconds_and_no_more(tmp_path: Path) -> None:
    history = History(tmp_path, seconds=60, series_max=4)
    for i in range(150):
        history.append(NOW + i, {"rate": float(i)})
    size = (tmp_path / "measures.ring").stat().st_size
    curves = history.read(["rate"], since=NOW + 80, until=NOW + 149)
    assert curves.series["rate"] == [None] * 10 + [float(i) for i in range(90, 150)]
    history.append(NOW + 150, {"rate": 1.0})
    assert (tmp_path / "measures.ring").stat().st_size == size


def test_the_whole_file_is_under_eight_megabytes(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.append(NOW // 7200 * 7200 + 7199, {"rate": 1.0})
    assert (tmp_path / "measures.ring").stat().st_size < 8_000_000


def test_a_torn_row_costs_its_second_alone(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / "measures.ring"
    data = bytearray(path.read_bytes())
    at = data.index(b"OGMEAS") + 4096 + (NOW + 20) % 7200 * 1040
    data[at + 20] ^= 0xFF
    path.write_bytes(data)
    curves = History(tmp_path).read(["rate"], since=NOW + 19, until=NOW + 21)
    assert curves.series == {"rate": [19, None, 21]}


@pytest.mark.parametrize("name", ["measures.ring", "measures.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "noise", "half"])
def test_a_damaged_file_begins_anew_or_goes_on(tmp_path: Path, name: str, damage: str) -> None:
    filled(tmp_path).close()
    path = tmp_path / name
    content = path.read_bytes()
    noise = random.Random(1).randbytes(len(content))
    changed = {"gone": None, "empty": b"", "noise": noise, "half": content[: len(content) // 2]}[damage]
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    history = History(tmp_path)
    history.append(NOW + 40, {"rate": 40.0, "new": 1.0})
    curves = history.read(["rate", "new"], since=NOW, until=NOW + 40)
    assert curves.series["rate"][-1] == 40 and curves.series["new"][-1] == 1
    assert all(value is None or value == i for i, value in enumerate(curves.series["rate"]))


def test_a_crash_between_a_row_and_its_size_is_harmless(tmp_path: Path) -> None:
    history = filled(tmp_path)
    history.close()
    path = tmp_path / "measures.ring"
    place = 4096 + (NOW + 29) % 7200 * 1040
    os.truncate(path, place + 7)
    curves = History(tmp_path).read(["rate"], since=NOW + 28, until=NOW + 29)
    assert curves.series == {"rate": [28, None]}


def test_more_series_than_columns_are_left_out_until_one_is_free(tmp_path: Path) -> None:
    history = History(tmp_path, seconds=10, series_max=2)
    history.append(NOW, {"a": 1.0, "b": 2.0, "c": 3.0})
    assert history.left_out == {"c"}
    for i in range(1, 12):
        history.append(NOW + i, {"a": 1.0})
    history._reclaimed = -math.inf
    history.append(NOW + 12, {"a": 1.0, "c": 3.0})
    assert history.read(["b", "c"], since=NOW + 11, until=NOW + 12).series == {"c": [None, 3]}
