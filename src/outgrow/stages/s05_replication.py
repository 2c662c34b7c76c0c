"""Stage 5: replication."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=5,
    name="replication",
    title="Replication",
    problem="Reads overwhelm one database, and it is the single point of failure.",
    due=(
        Due("database_cpu_share", ">", 0.7, 10, "database CPU above 70% for ten minutes"),
        Due("database_read_share", ">", 0.8, 10, "four of five statements are reads"),
    ),
    adds="replicas that serve reads, and a failover that promotes one",
    promises=(
        Promise("Every session reads its own writes and never goes back in time."),
        Promise("A failover loses nothing that was promised and never ends with two primaries."),
    ),
    cost="Lag becomes part of life; a consensus store joins the fleet; synchronous commits cost latency.",
)
