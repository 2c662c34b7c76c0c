"""Which of several nodes a key belongs to: the same for everybody, and mostly as before when nodes change.

    key ─► crc32 ─► one of 4096 slots ─► the node that wins this slot (rendezvous hashing)

Each node bids for each slot, and the highest bid wins. So a node that comes takes slots of all the others,
about 1/n of each, and no slot changes between those; one that goes leaves its own to them (Thaler and
Ravishankar, A Name-Based Mapping Scheme for Rendezvous, 1996). Bids are made once: a look costs a checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

SLOTS = 4096
"""A node's share of 4096 slots is within a twentieth of 1/n, nearly always, up to ten nodes."""


class Ring:
    """Over nodes by name, each there once, else ValueError. `node` gives a number in their order."""

    __slots__ = ("_table", "nodes")

    def __init__(self, nodes: Sequence[str]) -> None:
        if not nodes or len(set(nodes)) < len(nodes):
            raise ValueError("a ring needs at least one node, and each of them once")
        self.nodes = tuple(nodes)
        bids = [_bids(name) for name in nodes]
        order = range(len(nodes))
        self._table = bytes(
            max(order, key=lambda each: (bids[each][slot], nodes[each])) for slot in range(SLOTS)
        )

    def node(self, key: str) -> int:
        """Whose it is."""
        return self._table[crc32(key.encode()) & (SLOTS - 1)]


def _bids(name: str) -> list[int]:
    """Of a node, for each slot."""
    seed = name.encode()
    return [
        int.from_bytes(blake2b(seed, digest_size=8, salt=slot.to_bytes(2, "little")).digest(), "little")
        for slot in range(SLOTS)
    ]
