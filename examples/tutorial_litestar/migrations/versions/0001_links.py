"""Links, and who voted for them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("votes", sa.Integer, nullable=False),
    )
    op.create_index("links_by_votes", "links", ["votes", "id"])
    op.create_table(
        "votes",
        sa.Column("link_id", sa.BigInteger, sa.ForeignKey("links.id"), primary_key=True),
        sa.Column("voter", sa.Text, primary_key=True),
    )


def downgrade() -> None:
    op.drop_table("votes")
    op.drop_table("links")
