"""Registers over HTTP, for sessions whose history is recorded: GET and PUT /registers/7?level=eventual."""

from typing import Any

import msgspec
from register import READ, WRITE  # type: ignore[import-not-found]  # beside this file
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgrow import Outgrow

og = Outgrow()


class New(msgspec.Struct):
    """What is written; with `fails` it is rolled back at the last moment."""

    value: int
    fails: bool = False


async def read(request: Request) -> Response:
    level: Any = request.query_params.get("level")
    async with og.db.read(level=level) as tx:
        return answer(await tx.one(READ, register_=int(request.path_params["key"])))


async def write(request: Request) -> Response:
    new = msgspec.json.decode(await request.body(), type=New)
    async with og.db.write() as tx:
        row = await tx.one(WRITE, register_=int(request.path_params["key"]), new=new.value)
        if new.fails:
            raise HTTPException(418)
    return answer(row)


def answer(row: Any) -> Response:
    return Response(msgspec.json.encode(list(row)), media_type="application/json")


app = Starlette(
    routes=[
        Route("/registers/{key:int}", read),
        Route("/registers/{key:int}", write, methods=["PUT"]),
    ],
    lifespan=og.lifespan,
)
og.install(app)
