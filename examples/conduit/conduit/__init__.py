"""Conduit: a place to write and to read, and the application by which Outgrow shows what it does.

One file a noun. A request goes   app.py ─► articles.py, users.py, ... ─► reading/ or a write block.
"""

from outgrow import Outgrow

og = Outgrow()
"""Every tier: og.db, og.cache, og.queue, og.ids, og.secret. Where they are today says outgrow.toml."""
