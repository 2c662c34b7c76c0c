"""Stage 4: load balancer."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=4,
    name="load-balancer",
    title="Load balancer",
    problem=(
        "Many servers need one address, and a sick one must get no traffic: a server that is up without its "
        "database is worse than one that is down, since it answers every request, wrongly and fast."
    ),
    due=(Due("application_servers", ">", 1, 0, "more than one application server"),),
    adds=(
        "a balancer for layers 4 and 7 that asks each server for its health every 10 seconds, "
        "takes it out after 3 failures, and drains it before it goes"
    ),
    promises=(
        Promise("A server that is up without its database gets no traffic."),
        Promise("Servers come and go without a failed request."),
    ),
    cost="One more hop, and one more thing that must not die: it wants a standby.",
)
