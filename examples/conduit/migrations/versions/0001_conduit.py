"""users, articles, tags, favourites, comments and follows"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("bio", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("articles_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("favorites_count", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_table(
        "follows",
        sa.Column("follower_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("followee_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "articles",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("author_id", sa.BigInteger, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("slug", sa.Text, nullable=False, unique=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("tag_list", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.Column("favorites_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_comment", sa.Integer, nullable=False, server_default="0"),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("articles_by_author", "articles", ["author_id", "id"])
    op.create_table(
        "favorites",
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id"), primary_key=True),
        sa.Column("article_id", sa.BigInteger, _article(), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("favorites_by_article", "favorites", ["article_id", "user_id"])
    op.create_table(
        "comments",
        sa.Column("article_id", sa.BigInteger, _article(), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("author_id", sa.BigInteger, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "tags",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("articles_count", sa.Integer, nullable=False),
    )
    op.create_index("tags_by_count", "tags", [sa.text("articles_count DESC"), "name"])
    op.create_table(
        "article_tags",
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("article_id", sa.BigInteger, _article(), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("article_tags_by_article", "article_tags", ["article_id"])
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "articles", "value": 0}])


def _article() -> sa.ForeignKey:
    return sa.ForeignKey("articles.id", ondelete="CASCADE")


def downgrade() -> None:
    for table in ("counters", "article_tags", "tags", "comments", "favorites"):
        op.drop_table(table)
    for table in ("articles", "follows", "users"):
        op.drop_table(table)
