"""Stage 3: scale out."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=3,
    name="scale-out",
    title="Scale out",
    problem=(
        "One application server is at its ceiling, and its death takes the application down. A bigger one "
        "needs no change of the code (32 to 64 GB may give 1,000 to 1,500 requests a second), but its price "
        "grows faster than its size, it ends at about 448 cores and 24 TB, and it is still one."
    ),
    due=(
        Due(
            "machine_cpu_share",
            ">",
            0.7,
            10,
            "CPU of the application's machine above 70% for ten minutes, with the database elsewhere",
        ),
    ),
    adds="several application servers, or a bigger one where that is enough",
    promises=(
        Promise("A second equal server nearly doubles the throughput."),
        Promise("The death of one server is survived."),
    ),
    cost="State must leave the process, and a deploy goes from server to server.",
)
