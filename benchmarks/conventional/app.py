"""The routes."""

from __future__ import annotations

import secrets
from typing import Annotated

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from benchmarks.conventional import queries
from benchmarks.conventional.dependencies import (
    CurrentUser,
    Problem,
    Reader,
    Session,
    engine,
    make_token,
)
from benchmarks.conventional.models import Article, Comment, Tag, User, favourites, follows
from benchmarks.conventional.schemas import (
    ArticleCreate,
    ArticleResponse,
    ArticlesResponse,
    ArticleUpdate,
    CommentCreate,
    CommentResponse,
    CommentsResponse,
    LoginRequest,
    ProfileResponse,
    TagsResponse,
    UserOut,
    UserResponse,
)

app = FastAPI()
hasher = PasswordHasher()
insert = insert_postgres if engine.dialect.name == "postgresql" else insert_sqlite

Limit = Annotated[int, Query(ge=1, le=100)]
Offset = Annotated[int, Query(ge=0)]


@app.exception_handler(Problem)
async def on_problem(request: Request, error: Problem) -> JSONResponse:
    return JSONResponse(error.body, error.status)


@app.exception_handler(RequestValidationError)
async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    fields = {str(each["loc"][-1]): ["can't be blank"] for each in error.errors()}
    return JSONResponse({"errors": fields}, 422)


@app.post("/api/users/login")
async def login(given: LoginRequest, session: Session) -> UserResponse:
    user = (await session.scalars(select(User).where(User.email == given.user.email))).one_or_none()
    try:
        if user is None or not hasher.verify(user.password, given.user.password):
            raise VerificationError
    except VerificationError:
        raise Problem(401, "credentials", "invalid") from None
    out = UserOut(
        email=user.email, token=make_token(user), username=user.username, bio=user.bio, image=user.image
    )
    return UserResponse(user=out)


@app.get("/api/articles")
async def articles(
    session: Session,
    reader: Reader,
    tag: str | None = None,
    author: str | None = None,
    favorited: str | None = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> ArticlesResponse:
    return await queries.page(session, queries.filtered(tag, author, favorited), reader, limit, offset)


@app.get("/api/articles/feed")
async def feed(
    session: Session, user: CurrentUser, limit: Limit = 20, offset: Offset = 0
) -> ArticlesResponse:
    return await queries.page(session, queries.feed(user), user, limit, offset)


@app.get("/api/articles/{slug}")
async def one(slug: str, session: Session, reader: Reader) -> ArticleResponse:
    article = await queries.find_article(session, slug)
    return ArticleResponse(article=await queries.article_out(session, article, reader))


@app.post("/api/articles", status_code=201)
async def add_article(given: ArticleCreate, session: Session, user: CurrentUser) -> ArticleResponse:
    new = given.article
    slug = f"{'-'.join(new.title.lower().split())}-{secrets.token_hex(4)}"
    article = Article(
        slug=slug, title=new.title, description=new.description, body=new.body, author_id=user.id
    )
    article.tags = await queries.find_tags(session, sorted(set(new.tag_list)))
    session.add(article)
    await session.commit()
    article = await queries.find_article(session, slug)
    return ArticleResponse(article=await queries.article_out(session, article, user))


@app.put("/api/articles/{slug}")
async def change_article(
    slug: str, given: ArticleUpdate, session: Session, user: CurrentUser
) -> ArticleResponse:
    article = await queries.find_article(session, slug)
    if article.author_id != user.id:
        raise Problem(403, "article", "forbidden")
    for name, value in given.article.model_dump(exclude_unset=True).items():
        setattr(article, name, value)
    await session.commit()
    await session.refresh(article, ["favourites_count"])
    return ArticleResponse(article=await queries.article_out(session, article, user))


@app.post("/api/articles/{slug}/favorite")
async def favourite(slug: str, session: Session, user: CurrentUser) -> ArticleResponse:
    article = await queries.find_article(session, slug)
    row = {"user_id": user.id, "article_id": article.id}
    await session.execute(insert(favourites).values(row).on_conflict_do_nothing())
    await session.commit()
    await session.refresh(article, ["favourites_count"])
    return ArticleResponse(article=await queries.article_out(session, article, user))


@app.delete("/api/articles/{slug}/favorite")
async def unfavourite(slug: str, session: Session, user: CurrentUser) -> ArticleResponse:
    article = await queries.find_article(session, slug)
    await session.execute(
        delete(favourites).where(favourites.c.user_id == user.id, favourites.c.article_id == article.id)
    )
    await session.commit()
    await session.refresh(article, ["favourites_count"])
    return ArticleResponse(article=await queries.article_out(session, article, user))


@app.get("/api/articles/{slug}/comments")
async def comments(slug: str, session: Session, reader: Reader) -> CommentsResponse:
    article = await queries.find_article(session, slug)
    return CommentsResponse(comments=await queries.comments(session, article, reader))


@app.post("/api/articles/{slug}/comments", status_code=201)
async def add_comment(
    slug: str, given: CommentCreate, session: Session, user: CurrentUser
) -> CommentResponse:
    article = await queries.find_article(session, slug)
    comment = Comment(article_id=article.id, author_id=user.id, body=given.comment.body)
    session.add(comment)
    await session.commit()
    return CommentResponse(comment=queries.comment_out(comment, user, False))


@app.post("/api/profiles/{username}/follow")
async def follow(username: str, session: Session, user: CurrentUser) -> ProfileResponse:
    other = await queries.find_profile(session, username)
    row = {"follower_id": user.id, "followed_id": other.id}
    await session.execute(insert(follows).values(row).on_conflict_do_nothing())
    await session.commit()
    return ProfileResponse(profile=queries.profile(other, True))


@app.delete("/api/profiles/{username}/follow")
async def unfollow(username: str, session: Session, user: CurrentUser) -> ProfileResponse:
    other = await queries.find_profile(session, username)
    await session.execute(
        delete(follows).where(follows.c.follower_id == user.id, follows.c.followed_id == other.id)
    )
    await session.commit()
    return ProfileResponse(profile=queries.profile(other, False))


@app.get("/api/tags")
async def tags(session: Session) -> TagsResponse:
    return TagsResponse(tags=list(await session.scalars(select(Tag.name).order_by(Tag.name))))
