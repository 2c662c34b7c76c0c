"""ADAPTERS: one file or folder a real server, found by name and loaded on use."""

from __future__ import annotations

from importlib import import_module

from outgrow.engines.base import Engine, Placement
from outgrow.topology.model import Topology

__all__ = ["TABLE", "Engine", "Placement", "load"]

TABLE = {
    "application": "outgrow.engines.application:Application",
    "etcd": "outgrow.engines.etcd.etcd:Etcd",
    "patroni": "outgrow.engines.patroni.patroni:Patroni",
    "pgbouncer": "outgrow.engines.pgbouncer.pgbouncer:PgBouncer",
    "postgres": "outgrow.engines.postgres.postgres:Postgres",
    "redis-cache": "outgrow.engines.redis.cache:RedisCache",
    "redis-sessions": "outgrow.engines.redis.sessions:RedisSessions",
}


def load(name: str, topology: Topology, placement: Placement) -> Engine:
    """The engine of this name, for this topology at this place. Raises EngineMissing."""
    module, _, kind = TABLE[name].partition(":")
    engine: Engine = getattr(import_module(module), kind)(topology, placement)
    return engine
