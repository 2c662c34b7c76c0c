"""Which moves lead from one topology to another. Pure."""

from __future__ import annotations

from outgrow.errors import Misuse
from outgrow.growth.moves import MOVES
from outgrow.growth.step import Move
from outgrow.topology import Topology

TIERS = ("database", "sessions", "cache")
"""What no move changes together with another of them."""


def move_between(before: Topology, after: Topology) -> Move:
    """The move. Raises Misuse when there is none, or nothing to do."""
    if before == after:
        raise Misuse(f"the application is at stage {after.stage} already", hint="`outgrow status` shows it")
    for move in MOVES:
        if move.fits(before, after):
            return move
    if after.database.url is not None:
        raise Misuse(
            "the database is a PostgreSQL of your own (database.url), and this version moves data "
            "only to and from one that the fleet runs",
            hint="without the url, `outgrow grow` has the fleet start one; else copy the data by hand",
        )
    if before.balancer.engine != after.balancer.engine and before.database.engine != after.database.engine:
        raise Misuse(
            f"from stage {before.stage} to stage {after.stage} is more than one move",
            hint="go one stage at a time: the database by itself, then the servers "
            "(`outgrow grow separate-database`, `outgrow grow scale-out`; back with `outgrow shrink`)",
        )
    changed = [name for name in TIERS if getattr(before, name) != getattr(after, name)]
    if len(changed) > 1:
        parts = " and ".join(changed)
        raise Misuse(
            f"from stage {before.stage} to stage {after.stage} is more than one move: {parts}",
            hint="go one stage at a time; `outgrow shrink` without a stage finds the nearest",
        )
    raise Misuse(
        f"there is no live move from stage {before.stage} to stage {after.stage}",
        hint="`outgrow grow --help` lists the moves",
    )


def named(name: str) -> Move:
    """The move that a journal names. Raises Misuse when this version does not have it."""
    for move in MOVES:
        if move.name == name:
            return move
    raise Misuse(f"this version knows no move {name!r}", hint="finish it with the version that began it")
