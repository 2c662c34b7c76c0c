"""A table whose rows the database itself counts: what chaos/operations.py asks for."""

import sqlalchemy as sa

register = sa.table(
    "register", *(sa.column(name, sa.BigInteger) for name in ("key", "version", "value", "previous"))
)
_FOUND = (register.c.version, register.c.value, register.c.previous, sa.func.inet_server_port().label("port"))
READ = sa.select(*_FOUND).where(register.c.key == sa.bindparam("register_"))
WRITE = (
    sa.update(register)
    .where(register.c.key == sa.bindparam("register_"))
    .values(version=register.c.version + 1, previous=register.c.value, value=sa.bindparam("new"))
    .returning(*_FOUND)
)
