"""Stage 10: message queue."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=10,
    name="queue",
    title="Message queue",
    problem=(
        "Mail, thumbnails and search indexes are already queued work, but in a table: "
        "now the jobs wait, or the table takes the database away from the requests."
    ),
    due=(
        Due("queue_wait_seconds_p95", ">", 10, 10, "one job in twenty waits for more than ten seconds"),
        Due("queue_database_share", ">", 0.2, 10, "the job table takes a fifth of the database's time"),
    ),
    adds="a message broker, and workers of their own that scale apart from the servers",
    promises=(Promise("An acknowledged message is never lost; a crashed worker's message goes to another."),),
    cost="A broker to run; a message may come twice, so a second run must do no harm.",
)
