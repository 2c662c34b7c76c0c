"""Addresses of articles: "Ünder the Sea!" lives at /articles/ünder-the-sea."""

import re
import secrets
import unicodedata
from collections.abc import Iterator

LENGTH_MAX = 80
RESERVED = frozenset({"feed"})
"""Addresses that mean something else."""

_separators = re.compile(r"[\W_]+")


def slugify(title: str) -> str:
    """The title in lower-case letters and digits of any script, with "-" between words."""
    words = _separators.sub("-", unicodedata.normalize("NFKC", title).lower())
    return words[:LENGTH_MAX].strip("-") or "article"


def candidates(title: str) -> Iterator[str]:
    """Slugs to try for this title: the plain one, then ones that hardly anybody can have."""
    plain = slugify(title)
    if plain not in RESERVED:
        yield plain
    while True:
        yield f"{plain}-{secrets.token_hex(4)}"


def fits(slug: str, title: str) -> bool:
    """Whether an article at this address may keep it under this title."""
    plain = slugify(title)
    return slug == plain or re.fullmatch(rf"{re.escape(plain)}-[0-9a-f]{{8}}", slug) is not None
