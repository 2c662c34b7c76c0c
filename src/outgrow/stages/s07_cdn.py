"""Stage 7: CDN edge."""

from outgrow.stages.stage import Due, Promise, Stage

STAGE = Stage(
    number=7,
    name="cdn",
    title="CDN edge",
    problem=(
        "Far users pay about 150 ms for each request, where a near edge takes 5 to 20 ms: a page with fifty "
        "assets needs 7.5 seconds in place of one. Static and public answers travel the whole way each time."
    ),
    due=(
        Due(
            "far_request_share",
            ">",
            0.3,
            1440,
            "for a day, three in ten requests come from more than 100 ms away",
        ),
    ),
    adds="edge servers with purge by tag and code at the edge",
    promises=(
        Promise("A purge follows the commit that made it necessary."),
        Promise("No personal answer is ever shared."),
    ),
    cost="Every answer's headers have to be right, and transfer has a price.",
)
