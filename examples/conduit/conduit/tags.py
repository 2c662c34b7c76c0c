"""The tags that articles have, most popular first."""

from starlette.requests import Request

from conduit.documents import Json
from conduit.reading import answers


async def show_list(request: Request) -> Json:
    return Json(await answers.tags())
