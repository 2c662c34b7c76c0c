"""One change of topology a file. A new move is a file here and a line in MOVES."""

from __future__ import annotations

from outgrow.growth.moves.add_replicas import AddReplicas
from outgrow.growth.moves.cache import MoveCache
from outgrow.growth.moves.change_of_front import Balance, Unbalance
from outgrow.growth.moves.postgres_to_sqlite import PostgresToSqlite
from outgrow.growth.moves.remove_replicas import RemoveReplicas
from outgrow.growth.moves.sessions import MoveSessions
from outgrow.growth.moves.sqlite_to_postgres import SqliteToPostgres
from outgrow.growth.step import Move

MOVES: tuple[Move, ...] = (
    SqliteToPostgres(),
    PostgresToSqlite(),
    MoveSessions(),
    MoveCache(),
    Balance(),
    Unbalance(),
    AddReplicas(),
    RemoveReplicas(),
)
