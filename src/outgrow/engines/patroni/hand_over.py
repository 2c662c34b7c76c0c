"""The old primary's part in a planned change, in Patroni's process: it is ready to stop its server, and waits
for the word of who wanted the change.

    who wants it                                 Patroni of the old primary
    locks HAND_OVER, asks for the change ──────► looks at the others, writes a checkpoint
    sees that ◄───────────────────────────────── waits for HAND_OVER
    holds the writes, unlocks it ──────────────► stops the server, gives the lease back
    or ends that wait ─────────────────────────► forgets the change: everything stays as it was

So writes need not be held while it looks and writes the checkpoint, which is a third of the time. The lock is
PostgreSQL's own, and ends with whoever holds it. Where nobody holds it there is nothing to wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

HAND_OVER = 0x0068_616E_646F_7665
"""The key of the advisory lock."""

DATABASE = "postgres"
"""Its database: that to which Patroni connects."""

WAITS_MAX_S = 8
"""For the word."""

logger = logging.getLogger(__name__)


class Refused(Exception):
    """Whoever wanted the change does not want it any more."""


def prepare() -> None:
    """Have Patroni do so."""
    server = vars(import_module("patroni.postgresql"))["Postgresql"]
    server.stop = _stop_when_told(server.stop)
    ha = vars(import_module("patroni.ha"))["Ha"]
    ha.demote = _demote_unless_refused(ha.demote)


def _stop_when_told(stop: Callable[..., bool]) -> Callable[..., bool]:
    """Instead of writing a checkpoint, and then stopping at once."""

    def stops(server: Any, *what: object, before_shutdown: object = None, **how: Any) -> bool:
        if before_shutdown is not None:  # so it is a planned change: nothing else has it
            _wait_for_word(server)
            how["checkpoint"] = False
        return stop(server, *what, before_shutdown=before_shutdown, **how)

    return stops


def _wait_for_word(server: Any) -> None:
    """Raises Refused when it does not come, or when nothing can be asked."""
    psycopg = import_module("patroni.psycopg")
    cursor = import_module("patroni.postgresql.connection").get_connection_cursor
    options = f"-c statement_timeout=0 -c lock_timeout={WAITS_MAX_S}s"
    try:
        with cursor(**{**server.connection_pool.conn_kwargs, "options": options}) as asks:
            asks.execute("CHECKPOINT")
            asks.execute("SELECT pg_catalog.pg_advisory_lock(%s)", (HAND_OVER,))
    except psycopg.Error as error:
        raise Refused(str(error).strip()) from error


def _demote_unless_refused(demote: Callable[..., bool | None]) -> Callable[..., bool | None]:
    def demotes(ha: Any, mode: str) -> bool | None:
        try:
            return demote(ha, mode)
        except Refused as error:
            logger.warning("The switchover is given up: %s", error)
            ha.dcs.manual_failover("", "")  # or Patroni would try again
            return None

    return demotes
