"""What the routes ask of the database, through the ORM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload, undefer

from benchmarks.conventional.dependencies import Problem
from benchmarks.conventional.models import Article, Comment, Tag, User, article_tags, favourites, follows
from benchmarks.conventional.schemas import ArticleInList, ArticleOut, ArticlesResponse, CommentOut, Profile

RELATED = (joinedload(Article.author, innerjoin=True), selectinload(Article.tags))


async def page(
    session: AsyncSession, query: Select[Article], reader: User | None, limit: int, offset: int
) -> ArticlesResponse:
    """One page of the articles that `query` finds, newest first, and how many they are."""
    total = await session.scalar(
        select(func.count()).select_from(query.with_only_columns(Article.id).subquery())
    )
    newest = query.order_by(Article.created_at.desc(), Article.id.desc()).limit(limit).offset(offset)
    articles = (await session.scalars(newest.options(*RELATED))).all()
    liked = await _liked(session, reader, [article.id for article in articles])
    followed = await _followed(session, reader, [article.author_id for article in articles])
    listed = [
        ArticleInList(**_columns(article, article.id in liked, article.author_id in followed))
        for article in articles
    ]
    return ArticlesResponse(articles=listed, articles_count=total or 0)


def filtered(tag: str | None, author: str | None, favorited: str | None) -> Select[Article]:
    """The articles under the filters."""
    query = select(Article)
    if tag is not None:
        query = query.join(article_tags).join(Tag).where(Tag.name == tag)
    if author is not None:
        query = query.join(Article.author).where(User.username == author)
    if favorited is not None:
        users = select(User.id).where(User.username == favorited).scalar_subquery()
        query = query.join(favourites).where(favourites.c.user_id == users)
    return query


def feed(user: User) -> Select[Article]:
    """The articles of those whom the user follows."""
    return (
        select(Article)
        .join(follows, follows.c.followed_id == Article.author_id)
        .where(follows.c.follower_id == user.id)
    )


async def find_article(session: AsyncSession, slug: str) -> Article:
    """One with its body. Raises Problem when there is none."""
    query = select(Article).where(Article.slug == slug).options(*RELATED, undefer(Article.body))
    article = (await session.scalars(query.execution_options(populate_existing=True))).one_or_none()
    if article is None:
        raise Problem(404, "article", "not found")
    return article


async def article_out(session: AsyncSession, article: Article, reader: User | None) -> ArticleOut:
    """As the reader sees it."""
    liked = await _liked(session, reader, [article.id])
    followed = await _followed(session, reader, [article.author_id])
    return ArticleOut(**_columns(article, bool(liked), bool(followed)), body=article.body)


async def comments(session: AsyncSession, article: Article, reader: User | None) -> list[CommentOut]:
    """Those of an article, newest first."""
    query = select(Comment).where(Comment.article_id == article.id).order_by(Comment.id.desc())
    found = (await session.scalars(query.options(joinedload(Comment.author, innerjoin=True)))).all()
    followed = await _followed(session, reader, [comment.author_id for comment in found])
    return [comment_out(comment, comment.author, comment.author_id in followed) for comment in found]


async def find_tags(session: AsyncSession, names: Sequence[str]) -> list[Tag]:
    """The tags of these names, made where they are missing."""
    known = {tag.name: tag for tag in await session.scalars(select(Tag).where(Tag.name.in_(names)))}
    return [known.get(name) or Tag(name=name) for name in names]


async def find_profile(session: AsyncSession, username: str) -> User:
    """A user. Raises Problem when there is none."""
    user = (await session.scalars(select(User).where(User.username == username))).one_or_none()
    if user is None:
        raise Problem(404, "profile", "not found")
    return user


def profile(user: User, following: bool) -> Profile:
    """A user as the reader sees them."""
    return Profile(username=user.username, bio=user.bio, image=user.image, following=following)


def comment_out(comment: Comment, author: User, following: bool) -> CommentOut:
    """A comment with its author."""
    return CommentOut(
        id=comment.id,
        created_at=comment.created_at,
        updated_at=comment.created_at,
        body=comment.body,
        author=profile(author, following),
    )


def _columns(article: Article, favorited: bool, following: bool) -> dict[str, Any]:
    return {
        "slug": article.slug,
        "title": article.title,
        "description": article.description,
        "tag_list": [tag.name for tag in article.tags],
        "created_at": article.created_at,
        "updated_at": article.updated_at,
        "favorited": favorited,
        "favorites_count": article.favourites_count,
        "author": profile(article.author, following),
    }


async def _liked(session: AsyncSession, reader: User | None, articles: list[int]) -> set[int]:
    if reader is None or not articles:
        return set()
    query = select(favourites.c.article_id).where(
        favourites.c.user_id == reader.id, favourites.c.article_id.in_(articles)
    )
    return set(await session.scalars(query))


async def _followed(session: AsyncSession, reader: User | None, users: list[int]) -> set[int]:
    if reader is None or not users:
        return set()
    query = select(follows.c.followed_id).where(
        follows.c.follower_id == reader.id, follows.c.followed_id.in_(users)
    )
    return set(await session.scalars(query))
