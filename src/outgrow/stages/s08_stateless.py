"""Stage 8: stateless tier."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=8,
    name="stateless",
    title="Stateless tier",
    problem="Sessions live in one server's memory, so servers cannot come and go.",
    due=(Due("autoscaling_wanted", ">", 0, 0, "autoscaling or rolling deploys without log-outs are wanted"),),
    adds="shared sessions and a controller that adds and removes servers",
    promises=(Promise("Any server may die and no user notices."),),
    cost="A session store to run; limits and cool-downs to tune.",
)
