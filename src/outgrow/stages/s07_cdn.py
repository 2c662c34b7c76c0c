"""Stage 7: CDN edge."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=7,
    name="cdn",
    title="CDN edge",
    problem="Users are far away, and static or public answers travel the whole way each time.",
    due=(Due("far_request_share", ">", 0.3, 1440, "three in ten requests come from more than 100 ms away"),),
    adds="edge servers with purge by tag and code at the edge",
    promises=(
        Promise("A purge follows the commit."),
        Promise("No personal answer is ever shared."),
    ),
    cost="Headers have to be right; purging is a distributed system of its own.",
)
