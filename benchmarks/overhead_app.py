"""A small application: bytes at /bytes, one row of SQLite at /row. BENCHMARK_INSTALL=yes installs Outgrow's
middleware around it."""

from __future__ import annotations

import os

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgrow import Outgrow

INSTALLED = os.environ.get("BENCHMARK_INSTALL") == "yes"
GET_ROW = sa.text("SELECT commits FROM outgrow_position WHERE one = :number")

og = Outgrow()


async def answer_bytes(request: Request) -> Response:
    return Response(b"Hello, world", media_type="text/plain")


async def answer_row(request: Request) -> Response:
    async with og.db.read() as tx:
        row = await tx.one(GET_ROW, number=1)
    assert row is not None
    return Response(b"%d" % row[0], media_type="text/plain")


app = Starlette(routes=[Route("/bytes", answer_bytes), Route("/row", answer_row)], lifespan=og.lifespan)
if INSTALLED:
    og.install(app)
