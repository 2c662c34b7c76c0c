"""Copying a database to another while it is written to.

    snapshot ─► copy all rows ─► again and again: what has changed since ─► verify at a snapshot
             ─► writes held: what has changed last ─► the copy is the data

A store (sqlite.py, postgres.py) gives snapshots and takes rows. Rows are tuples of Python values that
mean the same on both (columns.py). A change is noted as the key of its row by triggers of the
source; what the row is now is read when it is copied, so that copying it twice does no harm.
"""
