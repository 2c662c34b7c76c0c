"""Stage 9: several data centres."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=9,
    name="multi-dc",
    title="Several data centres",
    problem="A region can fail as a whole, and distant users pay 150 ms a round trip.",
    due=(Due("regional_availability_required", ">", 0, 0, "an outage of a whole region must be survived"),),
    adds="a second region, GeoDNS, and failover or two writers",
    promises=(Promise("The loss of a region is survived within the time that the mode promises."),),
    cost="Conflicts or a failover to practise; everything twice.",
)
