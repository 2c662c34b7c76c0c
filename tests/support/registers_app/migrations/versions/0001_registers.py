"""200 registers that nobody has written yet."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEYS = 200


def upgrade() -> None:
    registers = op.create_table(
        "register",
        sa.Column("key", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("version", "value", "previous")),
    )
    op.bulk_insert(registers, [{"key": key, "version": 0, "value": 0, "previous": 0} for key in range(KEYS)])


def downgrade() -> None:
    op.drop_table("register")
