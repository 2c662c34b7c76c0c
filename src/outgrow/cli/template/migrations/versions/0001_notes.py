"""The first step: a table of notes.

One Alembic file a step. The same file runs on SQLite and on PostgreSQL, so use `op` and SQLAlchemy's
types, not SQL that only one of them understands. The next step is a new file here, 0002_..., whose
`down_revision` is "0001".
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "notes",
        # Ids come from the application (og.ids), so that there may be several databases one day.
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words", sa.Integer),  # counted later, by a queued task
    )


def downgrade() -> None:
    op.drop_table("notes")
