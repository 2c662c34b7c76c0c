"""a comment's number is the time at which it was made: to count them, each wrote the article, too"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # whose integers have 64 bits anyway
        op.alter_column("comments", "number", type_=sa.BigInteger)
    op.drop_column("articles", "last_comment")


def downgrade() -> None:
    op.add_column("articles", sa.Column("last_comment", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        "UPDATE comments SET number = (SELECT count(*) FROM comments AS other WHERE other.article_id ="
        " comments.article_id AND other.number <= comments.number)"
    )
    op.execute(
        "UPDATE articles SET last_comment = coalesce((SELECT max(number) FROM comments"
        " WHERE article_id = articles.id), 0)"
    )
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("comments", "number", type_=sa.Integer)
