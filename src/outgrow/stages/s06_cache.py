"""Stage 6: shared cache."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=6,
    name="cache",
    title="Shared cache",
    problem="The same expensive queries are asked again and again by many servers.",
    due=(
        Due("database_time_share", ">", 0.5, 10, "queries are more than half of the response time"),
        Due("cache_hit_share", "<", 0.9, 10, "each process warms a cache of its own and misses"),
    ),
    adds="Redis behind the in-process cache, with invalidation by tag",
    promises=(
        Promise("No session gets an entry older than its own writes."),
        Promise("500 misses at once load once."),
    ),
    cost="A value can now be in two places; memory to size; a tier that may vanish at any time.",
)
