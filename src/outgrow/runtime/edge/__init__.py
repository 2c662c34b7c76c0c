"""The edge tier: what callers and caches between here and them may keep."""
