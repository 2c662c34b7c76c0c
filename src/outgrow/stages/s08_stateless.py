"""Stage 8: stateless tier."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=8,
    name="stateless",
    title="Stateless tier",
    problem=(
        "Sessions live in one server's memory, so a server that goes logs its users out: "
        "no deploy goes unnoticed, and nobody dares to scale down at night."
    ),
    due=(Due("autoscaling_wanted", ">", 0, 0, "autoscaling, or deploys that log nobody out, are wanted"),),
    adds="sessions in a shared store, and a controller that adds and removes servers",
    promises=(Promise("Any server may die and no user notices.", drills=("lose-session",)),),
    cost="A session store to run, and limits and cool-downs to tune.",
)
