"""THE LADDER: eleven stages in order, each a file. A stage is a named point; behaviour lives elsewhere."""

from __future__ import annotations

from outgrow.errors import Misuse, NotBuiltYet
from outgrow.stages import (
    s01_single_server,
    s02_separate_database,
    s03_scale_out,
    s04_load_balancer,
    s05_replication,
    s06_cache,
    s07_cdn,
    s08_stateless,
    s09_multi_dc,
    s10_queue,
    s11_sharding,
)
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import STAGES, Topology
from outgrow.topology.wording import nearest

__all__ = ["LADDER", "Due", "Promise", "Stage", "apply", "find"]

LADDER: tuple[Stage, ...] = (
    s01_single_server.STAGE,
    s02_separate_database.STAGE,
    s03_scale_out.STAGE,
    s04_load_balancer.STAGE,
    s05_replication.STAGE,
    s06_cache.STAGE,
    s07_cdn.STAGE,
    s08_stateless.STAGE,
    s09_multi_dc.STAGE,
    s10_queue.STAGE,
    s11_sharding.STAGE,
)


def find(named: str | int) -> Stage:
    """The stage of this name or number. Raises Misuse with the nearest spelling when there is none."""
    text = str(named)
    for stage in LADDER:
        if text in (stage.name, str(stage.number)):
            return stage
    names = [stage.name for stage in LADDER]
    hint = nearest(text, names) or f"1 to {len(LADDER)}, or: {', '.join(names)}"
    raise Misuse(f'there is no stage "{text}"', hint=hint)


def apply(topology: Topology, named: str | int) -> Topology:
    """The topology at that stage. Raises Misuse for an unknown one, NotBuiltYet for one to come."""
    stage = find(named)
    if stage.change is None:
        built = [f"{each.number} {each.name}" for each in LADDER if each.built]
        raise NotBuiltYet(stage.number, stage.name, built)
    shared = STAGES.index(topology.stage) >= STAGES.index(s08_stateless.NAME)
    if shared and stage.number < s08_stateless.STAGE.number:
        topology = s08_stateless.left(topology)
    cached = STAGES.index(topology.stage) >= STAGES.index(s06_cache.NAME)
    if cached and stage.number < s06_cache.STAGE.number:
        topology = s06_cache.left(topology)
    return stage.change(topology)
