"""What the API takes and what it answers, as msgspec structs: decoded, checked and encoded in C.

A document can be encoded with holes, which are filled in later for each reader:

    encode_with_holes(Profile("ann", None, None, following=HOLE))
        == [b'{"username":"ann","bio":null,"image":null,"following":', b"}"]
"""

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.responses import Response

# --- What comes in. The lengths are in characters; a NUL is refused, since PostgreSQL cannot keep it.

VISIBLE = r"\A[^\0]*[^\s\0][^\0]*\Z"
NAME = r"\A(?!\.+\Z)[^\s/\x00-\x1f\x7f]([^/\x00-\x1f\x7f]*[^\s/\x00-\x1f\x7f])?\Z"

Username: TypeAlias = Annotated[str, Meta(max_length=64, pattern=NAME)]
Email: TypeAlias = Annotated[str, Meta(max_length=254, pattern=r"\A[^\s@\0]+@[^\s@\0]+\Z")]
Password: TypeAlias = Annotated[str, Meta(min_length=8, max_length=128, pattern=VISIBLE)]
Line: TypeAlias = Annotated[str, Meta(max_length=1_000, pattern=VISIBLE)]
OptionalLine: TypeAlias = Annotated[str, Meta(max_length=1_000, pattern=r"\A[^\0]*\Z")]
Title: TypeAlias = Annotated[str, Meta(max_length=200, pattern=VISIBLE)]
Essay: TypeAlias = Annotated[str, Meta(max_length=100_000, pattern=VISIBLE)]
Remark: TypeAlias = Annotated[str, Meta(max_length=10_000, pattern=VISIBLE)]
Tag: TypeAlias = Annotated[str, Meta(max_length=50, pattern=VISIBLE)]
Tags: TypeAlias = Annotated[list[Tag], Meta(max_length=20)]


class Credentials(Struct):
    email: Line
    password: Line


class NewUser(Struct):
    username: Username
    email: Email
    password: Password


class UserChanges(Struct):
    """Absent: unchanged. A bio or an image that is null or empty is taken away."""

    username: Username | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    password: Password | UnsetType = UNSET
    bio: OptionalLine | UnsetType | None = UNSET
    image: OptionalLine | UnsetType | None = UNSET


class NewArticle(Struct, rename="camel"):
    title: Title
    description: Line
    body: Essay
    tag_list: Tags = []


class ArticleChanges(Struct, rename="camel"):
    """Absent: unchanged."""

    title: Title | UnsetType = UNSET
    description: Line | UnsetType = UNSET
    body: Essay | UnsetType = UNSET
    tag_list: Tags | UnsetType = UNSET


class NewComment(Struct):
    body: Remark


# --- What goes out.


class User(Struct):
    """The caller's own account."""

    email: str
    token: str
    username: str
    bio: str | None
    image: str | None


class Profile(Struct):
    """Somebody, as the caller sees them."""

    username: str
    bio: str | None
    image: str | None
    following: bool | Raw


class Summary(Struct, rename="camel"):
    """An article in a list: all but its body. `tag_list` is JSON already."""

    slug: str
    title: str
    description: str
    tag_list: Raw
    created_at: str
    updated_at: str
    favorited: bool | Raw
    favorites_count: int
    author: Profile | Raw


class Article(Struct, rename="camel"):
    slug: str
    title: str
    description: str
    tag_list: Raw
    created_at: str
    updated_at: str
    body: str
    favorited: bool | Raw
    favorites_count: int
    author: Profile | Raw


class Articles(Struct, rename="camel"):
    articles: list[Summary]
    articles_count: int


class Comment(Struct, rename="camel"):
    id: int
    created_at: str
    updated_at: str
    body: str
    author: Profile | Raw


HOLE: Final = Raw(b"\0")
"""Stands for what differs from reader to reader. No JSON text holds a NUL: inside strings it is escaped."""

encode = msgspec.json.Encoder().encode


def encode_with_holes(document: Struct) -> list[bytes]:
    """The document as JSON, cut at its holes."""
    return encode(document).split(b"\0")


class Json(Response):
    """An answer: bytes are JSON already, anything else is encoded."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else encode(content)
