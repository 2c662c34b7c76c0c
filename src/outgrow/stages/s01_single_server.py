"""Stage 1: one process, one file."""

from msgspec.structs import replace

from outgrow.stages.stage import Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.model import Database
from outgrow.topology.rules import complete


def change(topology: Topology) -> Topology:
    """Application and database in one process: SQLite."""
    database = Database(pool=topology.database.pool, durability=topology.database.durability)
    return complete(replace(topology, stage="single-server", database=database))


STAGE = Stage(
    number=1,
    name="single-server",
    title="Single server",
    problem="There is an idea and no traffic. Anything more than one process is in the way.",
    due=(),
    adds="one process with the application, its SQLite file, its cache and its queue",
    promises=(
        Promise(
            'An acknowledged write survives the death of the process, and with durability = "full" a power cut.',
            "tests/drills/test_process_loss.py",
        ),
        Promise(
            "A message enqueued in a transaction is delivered at least once if and only if it commits.",
            "tests/contract/test_queue.py",
        ),
    ),
    cost="One machine is the ceiling and the single point of failure; a deploy interrupts for a moment.",
    change=change,
)
