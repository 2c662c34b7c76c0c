"""Stage 6: shared cache."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=6,
    name="cache",
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
        Promise("No session gets an entry older than its own writes."),
        Promise("500 misses of one key at once load it once."),
    ),
    cost="A value is now in two places; there is memory to size, and a tier that may vanish at any time.",
)
