"""Stage 6: shared cache."""

from msgspec.structs import replace

from outgrow.stages import s04_load_balancer
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import STAGES, Topology
from outgrow.topology.complete import complete

NAME = "cache"


def change(topology: Topology) -> Topology:
    """A cache in Redis: your own where a url says so, else one that the fleet runs."""
    if topology.stage == NAME:
        return topology
    if STAGES.index(topology.stage) < STAGES.index(s04_load_balancer.NAME):
        topology = s04_load_balancer.change(topology)
    return complete(replace(topology, stage=NAME, cache=replace(topology.cache, engine="redis")))


def left(topology: Topology) -> Topology:
    """For an earlier stage: each process has its own again. Your own Redis stays what it is."""
    if topology.cache.engine != "redis" or topology.cache.url is not None:
        return topology
    return replace(topology, cache=replace(topology.cache, engine="memory"))


STAGE = Stage(
    number=6,
    name=NAME,
    title="Shared cache",
    problem=(
        "Many servers ask the same expensive queries again and again, each with a cache of its own to warm. "
        "A shared one turns 50 ms into 2 ms and takes 80 to 90% of the load off the database."
    ),
    due=(
        Due("database_time_share", ">", 0.5, 10, "queries are more than half of the response time"),
        Due("cache_hit_share", "<", 0.9, 10, "fewer than nine in ten reads hit the caches of the processes"),
    ),
    adds="Redis behind the cache in each process, with invalidation by tag",
    promises=(
        Promise(
            "The shared cache comes and goes while the application serves, without a failed request.",
            "tests/drills/test_cache.py",
        ),
        Promise(
            "500 misses of one key in four processes are one load.",
            "tests/contract/test_shared_cache.py",
        ),
        Promise(
            "No session is shown anything older than what it has written or seen, whichever process it asks.",
            "tests/contract/test_guarantees.py",
        ),
        Promise(
            "It may hang, die, or begin anew, empty: no request fails, and every user sees their own writes.",
            "tests/drills/test_cache_drills.py",
            ("cache-restart", "cache-gone", "cache-slow", "cache-full"),
        ),
        Promise(
            "What psql or another program changes in the tables that are named it forgets within a second.",
            "tests/contract/test_following.py",
        ),
    ),
    cost="A value is now in two places; there is memory to size, and a tier that may vanish at any time.",
    change=change,
)
