"""Links that people vote on: the application of docs/tutorial-fastapi.md."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field

from outgrow import Outgrow, Read, Write, errors

og = Outgrow()
app = FastAPI(title="Links", lifespan=og.lifespan)

metadata = sa.MetaData()
links = sa.Table(
    "links",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("url", sa.Text),
    sa.Column("title", sa.Text),
    sa.Column("votes", sa.Integer),
)
votes = sa.Table(
    "votes",
    metadata,
    sa.Column("link_id", sa.BigInteger, primary_key=True),
    sa.Column("voter", sa.Text, primary_key=True),
)

ADD_LINK = sa.insert(links)
GET_LINK = sa.select(links).where(links.c.id == sa.bindparam("link_id"))
TOP_LINKS = sa.select(links).order_by(links.c.votes.desc(), links.c.id.desc()).limit(20)
ADD_VOTE = sa.insert(votes)
VOTES_OF_LINK = sa.select(sa.func.count()).where(votes.c.link_id == links.c.id).scalar_subquery()
COUNT_VOTES = sa.update(links).where(links.c.id == sa.bindparam("link_id")).values(votes=VOTES_OF_LINK)


class NewLink(BaseModel):
    """What a client sends."""

    url: str = Field(pattern=r"^https?://", max_length=2000)
    title: str = Field(min_length=1, max_length=200)


class Link(NewLink):
    """What a client gets. The id is text, since JavaScript rounds 64-bit numbers."""

    id: str
    votes: int


def as_link(row: Any) -> Link:
    return Link(id=str(row.id), url=row.url, title=row.title, votes=row.votes)


async def reading() -> AsyncIterator[Read]:
    async with og.db.read() as tx:
        yield tx


async def writing() -> AsyncIterator[Write]:
    async with og.db.write() as tx:
        yield tx


Reading = Annotated[Read, Depends(reading, scope="function")]
Writing = Annotated[Write, Depends(writing, scope="function")]


@app.get("/links/{link_id}")
async def get_link(link_id: int, tx: Reading) -> Link:
    row = await tx.one(GET_LINK, link_id=link_id)
    if row is None:
        raise HTTPException(404, "there is no such link")
    return as_link(row)


@app.post("/links", status_code=201)
async def add_link(new: NewLink, tx: Writing) -> Link:
    link_id = og.ids.next()
    await tx.execute(ADD_LINK, id=link_id, url=new.url, title=new.title, votes=0)
    og.cache.invalidate("links")
    return Link(id=str(link_id), votes=0, **new.model_dump())


async def load_top_links() -> list[Link]:
    async with og.db.read() as tx:
        return [as_link(row) for row in await tx.all(TOP_LINKS)]


@app.get("/links")
async def top_links() -> list[Link]:
    return await og.cache.get("top-links", load_top_links, ttl="5m", tags=["links"])


@og.queue.task
async def count_votes(link_id: int) -> None:
    async with og.db.write() as tx:
        await tx.execute(COUNT_VOTES, link_id=link_id)
        og.cache.invalidate("links")


@app.put("/links/{link_id}/votes/{voter}", status_code=202)
async def vote(link_id: int, voter: str, tx: Writing) -> dict[str, str]:
    try:
        await tx.execute(ADD_VOTE, link_id=link_id, voter=voter)
    except errors.ForeignKeyViolation:
        raise HTTPException(404, "there is no such link") from None
    except errors.UniqueViolation:
        raise HTTPException(409, f"{voter} has voted for this link already") from None
    og.queue.enqueue(count_votes, link_id, key=f"votes:{link_id}")
    return {"thanks": voter}


og.install(app)
