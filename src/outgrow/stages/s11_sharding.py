"""Stage 11: sharding."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=11,
    name="sharding",
    title="Sharding",
    problem=(
        "One primary cannot take the writes or hold the data, and cache, replicas and tuning are exhausted. "
        "One PostgreSQL goes far: a few terabytes, 10,000 to 50,000 simple queries and 5,000 to 20,000 "
        "inserts a second."
    ),
    due=(
        Due(
            "database_write_share_of_capacity",
            ">",
            0.7,
            1440,
            "for a day, writes above 70% of what one primary can take",
        ),
        Due("database_bytes", ">", 2e12, 0, "more than two terabytes of data"),
    ),
    adds="the data partitioned over several primaries, with live resharding",
    promises=(Promise("Moving a bucket holds its writes for under a second and loses none."),),
    cost=(
        "No joins, foreign keys or transactions across shards, "
        "and no whole-table query that is not precomputed. The last resort."
    ),
)
