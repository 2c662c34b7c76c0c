"""Stage 1: one process, one file."""

from msgspec.structs import replace

from outgrow.stages.stage import Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.complete import complete

NAME = "single-server"


def change(topology: Topology) -> Topology:
    """Application and database in one process: SQLite. Whoever is there already keeps what they have."""
    if topology.stage == NAME:
        return topology
    database = replace(
        topology.database,
        engine="sqlite",
        file=None,
        url=None,
        migrations_url=None,
        replica_urls=(),
        replicas=0,
        replication="async",
        sync_strict=False,
    )
    return complete(replace(alone(topology), stage=NAME, database=database))


def alone(topology: Topology) -> Topology:
    """With one application server, which has the address itself."""
    application = replace(topology.application, servers=1)
    balancer = replace(topology.balancer, engine=None, layer=7)
    return replace(topology, application=application, balancer=balancer)


STAGE = Stage(
    number=1,
    name=NAME,
    title="Single server",
    problem=(
        "There is an idea and no traffic yet. Every part that is not the application is in the way. "
        "A machine of 8 cores and 32 GB answers 500 to 1,000 simple requests a second, "
        "or 100 to 300 heavy ones, and many applications never see more."
    ),
    due=(),
    adds="one process that holds the application, its SQLite file, its cache and its queue",
    promises=(
        Promise(
            "An acknowledged write survives the death of the process, "
            'and with durability = "full" a power cut.',
            "tests/drills/test_process_loss.py",
        ),
        Promise(
            "A message enqueued in a transaction is delivered, at least once, if and only if it commits.",
            "tests/contract/test_queue.py",
        ),
    ),
    cost="One machine is the ceiling and the single point of failure, and a deploy interrupts for a moment.",
    change=change,
)
