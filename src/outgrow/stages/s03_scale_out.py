"""Stage 3: scale out."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=3,
    name="scale-out",
    title="Scale out",
    problem="One application server is at its ceiling, and its death takes the application down.",
    due=(
        Due(
            "machine_cpu_share",
            ">",
            0.7,
            10,
            "application CPU above 70% for ten minutes with the database elsewhere",
        ),
    ),
    adds="several application servers, or a bigger one where that is enough",
    promises=(
        Promise("A second equal server nearly doubles the throughput."),
        Promise("The death of one server is survived."),
    ),
    cost="State must leave the process; deploys become rolling.",
)
