"""Stage 2: the database on a node of its own."""

from msgspec.structs import replace

from outgrow.stages.s01_single_server import alone
from outgrow.stages.stage import Due, Promise, Stage
from outgrow.topology import Topology
from outgrow.topology.complete import complete, copies_below

NAME = "separate-database"


def change(topology: Topology) -> Topology:
    """The same application on PostgreSQL: your own where a url says so, else one that the fleet runs."""
    database = replace(topology.database, engine="postgres", file=None, replicas=copies_below(topology))
    if topology.stage != NAME:
        topology = alone(topology)
    return complete(replace(topology, stage=NAME, database=database))


STAGE = Stage(
    number=2,
    name=NAME,
    title="Separate database",
    problem=(
        "Application and database fight for the same cores and memory, one process at a time can write, "
        "and neither can be given what it needs: cores for the application, memory and fast disks for the "
        "database. Almost always the first move, and an early one: 30 to 50% better response times are usual."
    ),
    due=(
        Due("machine_cpu_share", ">", 0.7, 5, "CPU above 70% for five minutes"),
        Due("database_write_wait_share", ">", 0.1, 5, "writers wait for each other a tenth of the time"),
        Due("http_p99_seconds", ">", 0.5, 5, "p99 above half a second: it creeps before p50 does"),
    ),
    adds="PostgreSQL 18 as a node of its own, with one role for the application and one for migrations",
    promises=(
        Promise(
            "An acknowledged write survives the death of the database server and a power cut of its machine.",
            "tests/drills/test_database_loss.py",
            ("kill-database",),
        ),
        Promise(
            "The application finds the database again by itself after a restart.",
            "tests/drills/test_database_loss.py",
            ("kill-database",),
        ),
        Promise(
            "With [backup], any moment comes back: all that was acknowledged until then, and no more.",
            "tests/drills/test_restore.py",
            ("restore",),
        ),
        Promise(
            "The application's role can neither create nor drop a table.",
            "tests/cluster/test_postgres.py",
        ),
    ),
    cost="A second server to run, to back up and to upgrade, and each query now crosses a network.",
    change=change,
)
