"""Stage 5: replication."""

from msgspec.structs import replace

from outgrow.stages.s03_scale_out import several
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.complete import REPLICAS, complete

NAME = "replication"


def change(topology: Topology) -> Topology:
    """Replicas, unless the database is one of your own: then those are, too, and outgrow.toml names them."""
    if topology.stage == NAME:
        return topology
    balancer = replace(topology.balancer, engine="envoy", layer=7)
    wanted = replace(several(topology), stage=NAME, balancer=balancer)
    replicas = 0 if wanted.database.url is not None else topology.database.replicas or REPLICAS
    return complete(replace(wanted, database=replace(wanted.database, replicas=replicas)))


STAGE = Stage(
    number=5,
    name=NAME,
    title="Replication",
    problem=(
        "Reads, often nine in ten statements, overwhelm the one database, "
        "and when it dies everything stops until somebody gets up."
    ),
    due=(
        Due("database_cpu_share", ">", 0.7, 10, "CPU of the database above 70% for ten minutes"),
        Due("database_read_share", ">", 0.8, 10, "four of five statements are reads"),
    ),
    adds="replicas that serve reads, and a failover that promotes the one that lags least",
    promises=(
        Promise(
            "Every session reads its own writes and never goes back in time.",
            "tests/contract/test_guarantees.py",
            ("replica-lag", "kill-replica"),
        ),
        Promise(
            "A failover loses nothing that was promised and never ends with two primaries.",
            "tests/cluster/test_replicas.py",
            ("kill-primary", "lose-host", "pause-primary", "cut-primary", "lose-etcd"),
        ),
        Promise(
            "A planned switchover fails no request, and writes wait for less than a second.",
            "tests/drills/test_replication.py",
            ("switchover",),
        ),
    ),
    cost=(
        "Lag, of milliseconds to seconds, becomes a part of life; a consensus store joins the fleet; "
        "a commit that waits for a replica is slower, and one that does not may be lost."
    ),
    change=change,
)
