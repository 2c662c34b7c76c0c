"""Stage 11: sharding."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=11,
    name="sharding",
    title="Sharding",
    problem="One primary cannot take the writes or hold the data, and cache, replicas and tuning are exhausted.",
    due=(
        Due(
            "database_write_share_of_capacity",
            ">",
            0.7,
            1440,
            "writes above 70% of what one primary can take",
        ),
        Due("database_bytes", ">", 2000000000000.0, 0, "more than two terabytes"),
    ),
    adds="the data partitioned over several primaries, with live resharding",
    promises=(Promise("Moving a bucket holds its writes for under a second and loses none."),),
    cost="No joins or transactions across shards. A last resort.",
)
