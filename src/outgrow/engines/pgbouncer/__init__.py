"""PgBouncer, which lends many clients few connections to PostgreSQL."""
