"""Stage 8: stateless tier."""

from msgspec.structs import replace

from outgrow.stages import s04_load_balancer
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import STAGES, Topology
from outgrow.topology.complete import complete

NAME = "stateless"


def change(topology: Topology) -> Topology:
    """Sessions in Redis: your own where a url says so, else one that the fleet runs."""
    if topology.stage == NAME:
        return topology
    if STAGES.index(topology.stage) < STAGES.index(s04_load_balancer.NAME):
        topology = s04_load_balancer.change(topology)
    sessions = replace(topology.sessions, engine="redis")
    return complete(replace(topology, stage=NAME, sessions=sessions))


def left(topology: Topology) -> Topology:
    """For an earlier stage: who has a session keeps it, in the database. Your own Redis stays what it is."""
    if topology.sessions.engine != "redis" or topology.sessions.url is not None:
        return topology
    return replace(topology, sessions=replace(topology.sessions, engine="database"))


STAGE = Stage(
    number=8,
    name=NAME,
    title="Stateless tier",
    problem=(
        "Sessions live in one server's memory, so a server that goes logs its users out: "
        "no deploy goes unnoticed, and nobody dares to scale down at night."
    ),
    due=(Due("autoscaling_wanted", ">", 0, 0, "autoscaling, or deploys that log nobody out, are wanted"),),
    adds="sessions in a shared store, Redis, so that servers may come and go by themselves ([autoscale])",
    promises=(
        Promise(
            "Any server may die and no user loses their session.",
            "tests/drills/test_stateless.py",
            ("lose-session",),
        ),
        Promise(
            "Sessions go to the shared store and back while they are used: nobody is logged out, and no "
            "change of a session is lost.",
            "tests/drills/test_stateless.py",
        ),
        Promise(
            "Servers come and go with the load, without a failed request.", "tests/drills/test_autoscale.py"
        ),
    ),
    cost="A session store to run, and limits and cool-downs to tune.",
    change=change,
)
