"""Stage 3: scale out."""

from msgspec.structs import replace

from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.complete import complete, copies_below

NAME = "scale-out"
SERVERS_MIN = 2
ALONE = ("single-server", "separate-database")


def change(topology: Topology) -> Topology:
    """Several servers behind a balancer that passes on bytes, round robin."""
    if topology.stage == NAME:
        return topology
    balancer = replace(topology.balancer, engine="envoy", layer=4)
    return complete(replace(several(topology), stage=NAME, balancer=balancer))


def several(topology: Topology) -> Topology:
    """On PostgreSQL, with more than one application server, unless it was said otherwise further up."""
    count = topology.application.count
    if topology.stage in ALONE:
        count = max(SERVERS_MIN, count)
    database = replace(topology.database, engine="postgres", file=None, replicas=copies_below(topology))
    application = replace(topology.application, servers=count)
    return replace(topology, application=application, database=database)


STAGE = Stage(
    number=3,
    name=NAME,
    title="Scale out",
    problem=(
        "One application server is at its ceiling, and its death takes the application down. A bigger one "
        "needs no change of the code (32 to 64 GB may give 1,000 to 1,500 requests a second), but its price "
        "grows faster than its size, it ends at about 448 cores and 24 TB, and it is still one."
    ),
    due=(
        Due(
            "machine_cpu_share",
            ">",
            0.7,
            10,
            "CPU of the application's machine above 70% for ten minutes, with the database elsewhere",
        ),
    ),
    adds="several application servers behind a plain balancer, or a bigger one where that is enough",
    promises=(
        Promise(
            "Servers are added and drained, and the address changes its owner, without a failed request.",
            "tests/drills/test_scale.py",
        ),
        Promise("A second equal server nearly doubles the throughput.", "tests/drills/test_scale.py"),
        Promise("The death of one server is survived.", "tests/drills/test_scale.py", ("kill-server",)),
    ),
    cost="State must leave the process, and a deploy goes from server to server.",
    change=change,
)
