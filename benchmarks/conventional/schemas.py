"""What clients send and get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

Text = Annotated[str, StringConstraints(min_length=1)]


class Schema(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Credentials(Schema):
    email: Text
    password: Text


class LoginRequest(Schema):
    user: Credentials


class UserOut(Schema):
    email: str
    token: str
    username: str
    bio: str | None
    image: str | None


class UserResponse(Schema):
    user: UserOut


class Profile(Schema):
    username: str
    bio: str | None
    image: str | None
    following: bool


class ProfileResponse(Schema):
    profile: Profile


class ArticleInList(Schema):
    slug: str
    title: str
    description: str
    tag_list: list[str]
    created_at: datetime
    updated_at: datetime
    favorited: bool
    favorites_count: int
    author: Profile


class ArticleOut(ArticleInList):
    body: str


class ArticleResponse(Schema):
    article: ArticleOut


class ArticlesResponse(Schema):
    articles: list[ArticleInList]
    articles_count: int


class ArticleIn(Schema):
    title: Text
    description: Text
    body: Text
    tag_list: list[Text] = []


class ArticleCreate(Schema):
    article: ArticleIn


class ArticleChanges(Schema):
    title: Text | None = None
    description: Text | None = None
    body: Text | None = None


class ArticleUpdate(Schema):
    article: ArticleChanges


class CommentOut(Schema):
    id: int
    created_at: datetime
    updated_at: datetime
    body: str
    author: Profile


class CommentResponse(Schema):
    comment: CommentOut


class CommentsResponse(Schema):
    comments: list[CommentOut]


class CommentIn(Schema):
    body: Text


class CommentCreate(Schema):
    comment: CommentIn


class TagsResponse(Schema):
    tags: list[str]
