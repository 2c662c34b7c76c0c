"""Stage 4: load balancer."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=4,
    name="load-balancer",
    title="Load balancer",
    problem="Many servers need one address, and a dead or sick one must get no traffic.",
    due=(Due("application_servers", ">", 1, 0, "more than one application server"),),
    adds="a balancer for layers 4 and 7 with health checks, retries and draining",
    promises=(
        Promise("A server that is up without its database gets no traffic."),
        Promise("Servers come and go without a failed request."),
    ),
    cost="Another hop, and another thing to keep alive: it wants a standby.",
)
