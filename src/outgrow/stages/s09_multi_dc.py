"""Stage 9: several data centres."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=9,
    name="multi-dc",
    title="Several data centres",
    problem="A region can fail as a whole, and users on another continent pay 150 ms for each round trip.",
    due=(Due("regional_availability_required", ">", 0, 0, "the outage of a whole region must be survived"),),
    adds="a second region, GeoDNS that sends each user to the nearest, and a failover or two writers",
    promises=(Promise("The loss of a region is survived within the time that the mode promises."),),
    cost="Everything twice, and either conflicts to resolve or a failover to practise.",
)
