"""Stage 10: message queue."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=10,
    name="queue",
    title="Message queue",
    problem="Slow work sits in the request, or the database's job table is the bottleneck.",
    due=(
        Due("queue_wait_seconds_p95", ">", 10, 10, "jobs wait for more than ten seconds"),
        Due("queue_database_share", ">", 0.2, 10, "the job table takes a fifth of the database time"),
    ),
    adds="a message broker and workers of their own",
    promises=(Promise("An acknowledged message is never lost; a crashed worker's message goes to another."),),
    cost="A broker to run; at-least-once delivery asks for idempotent jobs.",
)
