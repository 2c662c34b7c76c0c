"""BACKUPS of the fleet's PostgreSQL: copies of the whole, every write since, and any moment of them again."""
