"""What a transaction says in the log of itself: which tags it has announced. Whoever reads its rows there
(runtime/following.py) need not tell these once more."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import text

PREFIX = "outgrow"
"""Of such messages; others in the same log are other people's."""

STATEMENT = text(f"SELECT pg_catalog.pg_logical_emit_message(true, '{PREFIX}', CAST(:tags AS text))")


def written(tags: Sequence[str]) -> str:
    """As STATEMENT takes them."""
    return msgspec.json.encode(tags).decode()


def read(content: bytes) -> list[str]:
    """The tags again. What is no list of them says nothing."""
    try:
        return msgspec.json.decode(content, type=list[str])
    except msgspec.DecodeError:
        return []
