"""how many articles a user has favourited is counted when asked: few ask, and every favourite paid for it"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_column("users", "favorites_count")


def downgrade() -> None:
    op.add_column("users", sa.Column("favorites_count", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE users SET favorites_count = (SELECT count(*) FROM favorites WHERE user_id = users.id)")
