"""Redis or Valkey: its process, and the two that a fleet runs, one of sessions and one of the cache."""
