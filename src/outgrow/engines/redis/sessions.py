"""The Redis of the sessions.

redis-sessions   service   what is in it survives a restart
"""

from __future__ import annotations

from outgrow import endpoints
from outgrow.engines.redis.redis import Redis, Settings, user

NAME = "redis-sessions"
NODE = 250
"""The last part of its address: out of the way of servers that are counted."""

MEMORY = "256mb"
COMMANDS = "+hmget +hget +hset +pexpire +del +scan +evalsha +script|load +ping"
"""Those that sessions need. By SCAN they are found that have to go to another store."""

SETTINGS: Settings = {
    # What was kept more than two seconds ago survives even a power cut.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory": MEMORY,
    # To refuse a new session is told; to forget one logs somebody out.
    "maxmemory-policy": "noeviction",
}


class RedisSessions(Redis):
    """One server, for the sessions of all processes."""

    last = NAME
    tier = "sessions"

    def settings(self) -> Settings:
        return SETTINGS

    def users(self) -> str:
        password = endpoints.read_secrets(self._place.secrets).passwords[self.tier]
        return users(self._topology.application.name, password)


def users(name: str, password: str) -> str:
    """The application's, with the least that it must be able to do.

    Nobody can be the default user, but in its name the server reads its own file at a start: without
    rights it would pass over every transaction there, and lose what is in it.
    """
    rights = f"~outgrow:{name}:session:* {COMMANDS}"
    return f"user default off resetpass ~* &* +@all\n{user(name, password, rights)}"
