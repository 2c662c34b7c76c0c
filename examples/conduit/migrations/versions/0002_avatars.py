"""avatars in several sizes, kept in the database so that every server has them"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "avatars",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("size", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_index("avatars_by_user", "avatars", ["user_id", "id"])


def downgrade() -> None:
    op.drop_table("avatars")
