"""Links that people vote on: the application of docs/tutorial-litestar.md."""

from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from litestar import Litestar, get, post, put
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, JSONBody

from outgrow import Outgrow, errors

og = Outgrow()

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


class NewLink(msgspec.Struct):
    """What a client sends."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://", max_length=2000)]
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Link(NewLink):
    """What a client gets. The id is text, since JavaScript rounds 64-bit numbers."""

    id: str
    votes: int


def as_link(row: Any) -> Link:
    return Link(id=str(row.id), url=row.url, title=row.title, votes=row.votes)


@get("/links/{link_id:int}")
async def get_link(link_id: FromPath[int]) -> Link:
    async with og.db.read() as tx:
        row = await tx.one(GET_LINK, link_id=link_id)
    if row is None:
        raise NotFoundException("there is no such link")
    return as_link(row)


@post("/links")
async def add_link(data: JSONBody[NewLink]) -> Link:
    link_id = og.ids.next()
    async with og.db.write() as tx:
        await tx.execute(ADD_LINK, id=link_id, url=data.url, title=data.title, votes=0)
        og.cache.invalidate("links")
    return Link(id=str(link_id), url=data.url, title=data.title, votes=0)


async def load_top_links() -> list[Link]:
    async with og.db.read() as tx:
        return [as_link(row) for row in await tx.all(TOP_LINKS)]


@get("/links")
async def top_links() -> list[Link]:
    return await og.cache.get("top-links", load_top_links, ttl="5m", tags=["links"])


@og.queue.task
async def count_votes(link_id: int) -> None:
    async with og.db.write() as tx:
        await tx.execute(COUNT_VOTES, link_id=link_id)
        og.cache.invalidate("links")


@put("/links/{link_id:int}/votes/{voter:str}", status_code=202)
async def vote(link_id: FromPath[int], voter: FromPath[str]) -> dict[str, str]:
    try:
        async with og.db.write() as tx:
            await tx.execute(ADD_VOTE, link_id=link_id, voter=voter)
            og.queue.enqueue(count_votes, link_id, key=f"votes:{link_id}")
    except errors.ForeignKeyViolation:
        raise NotFoundException("there is no such link") from None
    except errors.UniqueViolation:
        raise ClientException(f"{voter} has voted for this link already", status_code=409) from None
    return {"thanks": voter}


app = og.wrap(Litestar([get_link, add_link, top_links, vote], lifespan=[og.lifespan]))
