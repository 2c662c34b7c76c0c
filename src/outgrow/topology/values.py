"""What a value of outgrow.toml may be: the types of model.py's fields, with their bounds and examples."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta


def _whole(pattern: str) -> str:
    """For the whole text, in Python as in JavaScript: Python's `$` lets a last newline pass."""
    return rf"^(?:{pattern})$(?!\n)"


_HOST = r"(?:[^\s/?#@:,\[\]]*|\[[\da-fA-F:.]+\])(?::\d{1,5})?"
_POSTGRES_URL = rf"postgres(?:ql)?://(?:[^\s/?#@]*@)?{_HOST}(?:,{_HOST})*(?:/[^\s?#@]*)?(?:\?[^\s#@]*)?"
"""No sign that a URL keeps for itself may stand inside the password: what follows it would be shown."""

DURATION_TEXT = r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$"
LIFETIME = Meta(
    ge=1,
    le=31_536_000,  # browsers forget a cookie after about a year
    extra_json_schema={"pattern": DURATION_TEXT},
)
DURATION = Meta(
    ge=0.001,  # a server counts in milliseconds, and 0 of them means for ever
    le=86_400,
    extra_json_schema={"pattern": DURATION_TEXT},
)

REPLICAS_MAX = 9
"""A fleet has emulated hosts for so many, and one primary."""

Duration = Annotated[float, DURATION]
Lifetime = Annotated[float, LIFETIME]
Text = Annotated[str, Meta(min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
TableName = Annotated[
    str, Meta(pattern=_whole(r"(?:[a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}"), examples=["articles"])
]
Secret = Annotated[str, Meta(min_length=32)]
Turns = Annotated[int, Meta(ge=1, le=100)]
Requests = Annotated[int, Meta(ge=1, le=1_000_000)]
ReplicaCount = Annotated[int, Meta(ge=0, le=REPLICAS_MAX)]
ServerCount = Annotated[int, Meta(ge=1, le=100)]
ApplicationName = Annotated[str, Meta(pattern=_whole(r"[a-z][a-z0-9_]{0,39}"), examples=["shop"])]
PoolName = Annotated[str, Meta(pattern=_whole(r"[a-z][a-z0-9_-]{0,39}"), examples=["videos"])]
ServerName = Annotated[str, Meta(pattern=_whole(r"[a-z][a-z0-9_-]{0,39}-[1-9]\d{0,4}"), examples=["app-1"])]
Weight = Annotated[int, Meta(ge=1, le=1000)]
PathPrefix = Annotated[str, Meta(pattern=_whole(r"/[^\s?#]*"), examples=["/api/videos"])]
HostName = Annotated[
    str,
    Meta(pattern=_whole(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"), examples=["api.example.org"]),
]
HeaderMatch = Annotated[
    str,
    Meta(
        pattern=_whole(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:: [\x20-\x7e]+)?"),
        examples=["X-Version: 2"],
    ),
]
Method = Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
Cores = Annotated[float, Meta(ge=0.01, le=1024)]
Busy = Annotated[float, Meta(ge=0.01, le=1)]
UnderWay = Annotated[float, Meta(ge=0.01, le=1_000_000)]
ImportName = Annotated[str, Meta(pattern=_whole(r"\w+(?:\.\w+)*:\w+(?:\.\w+)*"), examples=["app:app"])]
RequestPath = Annotated[str, Meta(pattern=_whole(r"/[!-~]*"), examples=["/articles?page=1"])]
VariableName = Annotated[str, Meta(pattern=_whole(r"[A-Za-z_][A-Za-z0-9_]*"), examples=["LOG_LEVEL"])]
HttpUrl = Annotated[
    str, Meta(pattern=_whole(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?"), examples=["http://127.0.0.1:4318"])
]
PostgresUrl = Annotated[
    str, Meta(pattern=_whole(_POSTGRES_URL), examples=["postgresql://app@db.internal:5432/app"])
]
RedisUrl = Annotated[
    str,
    Meta(
        pattern=_whole(rf"rediss?://(?:[^\s/?#@]*@)?{_HOST}(?:/\d{{0,3}})?(?:\?[^\s#@]*)?"),
        examples=["rediss://app@redis.internal:6379/0"],
    ),
]
Consistency = Annotated[
    str,
    Meta(
        pattern=_whole(r"strong|session|eventual|(?:bounded|pinned)\(\d{1,5}(?:\.\d{1,3})?(?:ms|s|m|h)\)"),
        examples=["strong", "session", "eventual", "bounded(2s)", "pinned(5s)"],
    ),
]
CookieName = Annotated[
    str, Meta(pattern=_whole(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"), examples=["__Host-session"])
]
