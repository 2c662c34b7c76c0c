"""What can change, by name. Cached answers depend on these names, and whoever writes invalidates them,
inside the write block, so that both happen or neither.

A name is also the key of the cached thing itself, where there is one: `profile(7)` is the profile of
user 7 and what everything that shows it depends on.
"""

ARTICLES = "articles"
"""Which articles there are: the lists without a filter."""

TAGS = "tags"
"""Which tags there are, and the order of their popularity."""


def article(article_id: int) -> str:
    """An article as lists show it."""
    return f"article:{article_id}"


def slug(slug: str) -> str:
    """The article at this address, with its body."""
    return f"slug:{slug}"


def comments(article_id: int) -> str:
    """The comments on an article."""
    return f"comments:{article_id}"


def profile(user_id: int) -> str:
    """What others see of a user."""
    return f"profile:{user_id}"


def username(username: str) -> str:
    """Who has this name."""
    return f"username:{username}"


def favorites(user_id: int) -> str:
    """Which articles a user has favourited."""
    return f"favorites:{user_id}"


def follows(user_id: int) -> str:
    """Whom a user follows."""
    return f"follows:{user_id}"


def written(user_id: int) -> str:
    """Which articles a user has written."""
    return f"written:{user_id}"


def tagged(tag: str) -> str:
    """Which articles have a tag."""
    return f"tagged:{tag}"
