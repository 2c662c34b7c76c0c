"""Which node a key belongs to: evenly, the same everywhere, and as before but for what a change moves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgrow.runtime.ring import Ring

KEYS = [f"article:{number}" for number in range(20_000)]
names = st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=8, unique=True)


@settings(max_examples=20, deadline=None)
@given(names)
def test_each_node_has_about_its_share(nodes: list[str]) -> None:
    ring, share = Ring(nodes), len(KEYS) / len(nodes)
    counts = [0] * len(nodes)
    for key in KEYS:
        counts[ring.node(key)] += 1
    assert all(0.8 * share < count < 1.2 * share for count in counts), counts


@settings(max_examples=20, deadline=None)
@given(names)
def test_a_node_that_comes_takes_its_share_and_moves_nothing_else(nodes: list[str]) -> None:
    before, after = Ring(nodes[:-1]), Ring(nodes)
    moved = [key for key in KEYS if before.nodes[before.node(key)] != after.nodes[after.node(key)]]
    assert all(after.nodes[after.node(key)] == nodes[-1] for key in moved)
    assert 0.8 < len(moved) * len(nodes) / len(KEYS) < 1.2


@given(names, st.text(), st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_nodes_changes_nothing(nodes: list[str], key: str, chance: object) -> None:
    other = list(nodes)
    chance.shuffle(other)  # type: ignore[attr-defined]
    assert nodes[Ring(nodes).node(key)] == other[Ring(other).node(key)]


def test_every_process_says_the_same() -> None:
    code = (
        "from outgrow.runtime.ring import Ring; r = Ring('abc'); print([r.node(f'k{n}') for n in range(20)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([Ring(["a", "b", "c"]).node(f"k{number}") for number in range(20)])


@pytest.mark.parametrize("nodes", [[], ["a", "a"]])
def test_nodes_that_are_none_are_refused(nodes: list[str]) -> None:
    with pytest.raises(ValueError, match="each of them once"):
        Ring(nodes)
