"""Patroni, which keeps one PostgreSQL of several the primary: its processes, settings and view."""
