"""A small application that can grow: notes, a task that counts their words, a cached list.

It says what it needs. Where that is today (a file, a server, several) says outgrow.toml.
"""

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgrow import Outgrow

og = Outgrow()  # opens nothing yet; the application's lifespan, below, does

# --- The table, and every statement once. ----------------------------------------------------------
# A statement built here is compiled once and then runs on the bare driver. One built inside a
# function is compiled again at each call, which costs more than most queries do.

notes = sa.Table(
    "notes",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("text", sa.Text),
    sa.Column("words", sa.Integer),
)
ADD_NOTE = sa.insert(notes)
GET_NOTE = sa.select(notes).where(notes.c.id == sa.bindparam("note_id"))
NEWEST_NOTES = sa.select(notes).order_by(notes.c.id.desc()).limit(20)
SET_WORDS = sa.update(notes).where(notes.c.id == sa.bindparam("note_id")).values(words=sa.bindparam("count"))


class NewNote(msgspec.Struct):
    """What a client sends. msgspec checks it, and its message says what is wrong."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


# --- A queued task: work that nobody should wait for. ----------------------------------------------
# It runs at least once, after the write that enqueued it is committed, and again if it fails:
# write it so that a second run does no harm. Here the second count is the same as the first.


@og.queue.task
async def count_words(note_id: int) -> None:
    async with og.db.write() as tx:
        note = await tx.one(GET_NOTE, note_id=note_id)
        if note is None:  # deleted in the meantime
            return
        await tx.execute(SET_WORDS, note_id=note_id, count=len(note.text.split()))
        og.cache.invalidate("notes")


# --- The endpoints. --------------------------------------------------------------------------------


async def add_note(request: Request) -> Response:
    try:
        new = msgspec.json.decode(await request.body(), type=NewNote)
    except msgspec.DecodeError as error:
        raise HTTPException(422, str(error)) from error
    note_id = await save(new.text)
    return answer({"id": str(note_id)}, status=201)  # text, since JavaScript rounds 64-bit numbers


async def save(text: str) -> int:
    note_id = og.ids.next()  # 64 bits, in the order of time, unique without asking the database
    # One transaction. The three lines inside happen together or, if anything raises, not at all.
    async with og.db.write() as tx:
        await tx.execute(ADD_NOTE, id=note_id, text=text, words=None)
        og.queue.enqueue(count_words, note_id)
        og.cache.invalidate("notes")  # a tag: every cached answer that carries it is out of date
    return note_id


async def list_notes(request: Request) -> Response:
    # The answer is remembered until a write invalidates its tag, five minutes at the longest. Who
    # has just written sees that write at once, also when there are replicas and shared caches.
    newest = await og.cache.get("notes:newest", load_newest, ttl="5m", tags=["notes"])
    return answer({"notes": newest})


async def load_newest() -> list[dict[str, Any]]:
    async with og.db.read() as tx:  # a read block cannot write: the database itself refuses it
        return [as_document(note) for note in await tx.all(NEWEST_NOTES)]


async def get_note(request: Request) -> Response:
    async with og.db.read() as tx:
        note = await tx.one(GET_NOTE, note_id=request.path_params["note_id"])
    if note is None:
        raise HTTPException(404, "there is no such note")
    return answer(as_document(note))


async def index(request: Request) -> Response:
    return answer({"hello": 'a POST of {"text": "..."} to /notes adds a note', "notes": "/notes"})


def as_document(note: Any) -> dict[str, Any]:
    return {"id": str(note.id), "text": note.text, "words": note.words}


def answer(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status_code=status, media_type="application/json")


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer({"error": error.detail}, status=error.status_code)


# --- Data to play with: `outgrow seed`, or `outgrow seed -- 500`. ----------------------------------


async def seed(og: Outgrow, arguments: list[str]) -> None:
    for number in range(int(arguments[0]) if arguments else 20):
        await save(f"Note {number + 1}: grow only when the figures say so")


app = Starlette(
    routes=[
        Route("/", index),
        Route("/notes", list_notes),
        Route("/notes", add_note, methods=["POST"]),
        Route("/notes/{note_id:int}", get_note),
    ],
    exception_handlers={HTTPException: on_http_error},
    lifespan=og.lifespan,
)
og.install(app)  # request scope, consistency, /health, /metrics: one middleware
