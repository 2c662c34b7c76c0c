"""Stage 5: replication."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=5,
    name="replication",
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
        Promise("Every session reads its own writes and never goes back in time."),
        Promise("A failover loses nothing that was promised and never ends with two primaries."),
    ),
    cost=(
        "Lag, of milliseconds to seconds, becomes a part of life; a consensus store joins the fleet; "
        "a commit that waits for a replica is slower, and one that does not may be lost."
    ),
)
