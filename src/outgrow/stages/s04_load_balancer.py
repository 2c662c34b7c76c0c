"""Stage 4: load balancer."""

from msgspec.structs import replace

from outgrow.stages.s03_scale_out import several
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.complete import complete

NAME = "load-balancer"


def change(topology: Topology) -> Topology:
    """The balancer reads HTTP: it asks the servers for their health, tries again, and chooses by request."""
    if topology.stage == NAME:
        return topology
    balancer = replace(topology.balancer, engine="envoy", layer=7)
    return complete(replace(several(topology), stage=NAME, balancer=balancer))


STAGE = Stage(
    number=4,
    name=NAME,
    title="Load balancer",
    problem=(
        "Many servers need one address, and a sick one must get no traffic: a server that is up without its "
        "database is worse than one that is down, since it answers every request, wrongly and fast."
    ),
    due=(Due("application_servers", ">", 1, 0, "more than one application server"),),
    adds=(
        "a balancer for layers 4 and 7 that asks each server for its health every 10 seconds, "
        "takes it out after 3 failures, and drains it before it goes"
    ),
    promises=(
        Promise(
            "A server that is up without its database gets no traffic.",
            "tests/drills/test_scale.py",
            ("lose-database", "pause-server"),
        ),
        Promise("Servers come and go without a failed request.", "tests/drills/test_scale.py", ("scale",)),
        Promise(
            "A new version comes server by server without a failed request, and goes again when it is slow.",
            "tests/drills/test_deploy.py",
            ("deploy", "deploy-slow"),
        ),
    ),
    cost="One more hop, and one more thing that must not die: it wants a standby.",
    change=change,
)
