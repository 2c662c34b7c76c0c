"""The tables that Outgrow itself keeps in the application's database. Their indexes are in upgrade.py."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData()

outbox = Table(
    "outgrow_outbox",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("topic", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("headers", Text, nullable=False, server_default=text("'{}'")),
    Column("dedupe", Text),
    Column("state", Text, nullable=False, server_default=text("'ready'")),
    Column("available_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("leased_until", BigInteger),
    Column("lease", Text),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    comment="messages of the transactions that have committed; times are Unix milliseconds",
)

session = Table(
    "outgrow_session",
    metadata,
    Column("id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("moved", Text, nullable=False, server_default=text("''")),
    comment="sessions under a hash of what their clients hold; times are Unix milliseconds",
)

done = Table(
    "outgrow_done",
    metadata,
    Column("key", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("result", Text, nullable=False),
    comment="idempotency keys of transactions that have committed; times are Unix milliseconds",
)

buffer = Table(
    "outgrow_buffer",
    metadata,
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), Identity(), primary_key=True),
    Column("strategy", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("era", BigInteger, nullable=False),
    Column("turn", BigInteger, nullable=False, server_default=text("0")),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("error", Text),
    sqlite_autoincrement=True,  # else a row could get the number of one that has been taken
    comment="what write-behind has acknowledged and not stored yet; times are Unix milliseconds",
)

sqlite_metadata = MetaData()

position = Table(
    "outgrow_position",
    sqlite_metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("timeline", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    comment="one row: how many transactions have committed; SQLite's stand-in for PostgreSQL's LSN",
)

migrated = Table(
    "outgrow_migrated",
    sqlite_metadata,
    Column("digest", Text, primary_key=True),
    comment="one row: of the migrations that this file has (migrate.digest)",
)
