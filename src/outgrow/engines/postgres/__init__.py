"""PostgreSQL: its process, set-up and roles, its archive, and what it waits for."""
