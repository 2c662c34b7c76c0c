"""DRILLS: one scenario a file, found by name and loaded on use."""

from __future__ import annotations

from importlib import import_module

from outgrow.chaos.drills.drill import Drill
from outgrow.errors import Misuse

__all__ = ["TABLE", "Drill", "find"]

TABLE = {
    "kill-server": "outgrow.chaos.drills.kill_server:KillServer",
    "pause-server": "outgrow.chaos.drills.pause_server:PauseServer",
    "lose-database": "outgrow.chaos.drills.lose_database:LoseDatabase",
    "slow-server": "outgrow.chaos.drills.slow_server:SlowServer",
    "scale": "outgrow.chaos.drills.scale:Scale",
    "deploy": "outgrow.chaos.drills.deploy:Deploy",
    "deploy-slow": "outgrow.chaos.drills.deploy_slow:DeploySlow",
    "restart-balancer": "outgrow.chaos.drills.restart_balancer:RestartBalancer",
    "lose-session": "outgrow.chaos.drills.lose_session:LoseSession",
    "kill-database": "outgrow.chaos.drills.kill_database:KillDatabase",
    "replica-lag": "outgrow.chaos.drills.replica_lag:ReplicaLag",
    "kill-replica": "outgrow.chaos.drills.kill_replica:KillReplica",
    "switchover": "outgrow.chaos.drills.switchover:Switchover",
    "kill-primary": "outgrow.chaos.drills.kill_primary:KillPrimary",
    "lose-host": "outgrow.chaos.drills.lose_host:LoseHost",
    "pause-primary": "outgrow.chaos.drills.pause_primary:PausePrimary",
    "cut-primary": "outgrow.chaos.drills.cut_primary:CutPrimary",
    "lose-etcd": "outgrow.chaos.drills.lose_etcd:LoseEtcd",
    "restore": "outgrow.chaos.drills.restore:Restore",
    "cache-restart": "outgrow.chaos.drills.cache_restart:CacheRestart",
    "cache-gone": "outgrow.chaos.drills.cache_gone:CacheGone",
    "cache-slow": "outgrow.chaos.drills.cache_slow:CacheSlow",
    "cache-full": "outgrow.chaos.drills.cache_full:CacheFull",
    "kill-supervisor": "outgrow.chaos.drills.kill_supervisor:KillSupervisor",
}


def find(name: str) -> Drill:
    """The drill of this name. Raises Misuse when there is none."""
    if name not in TABLE:
        raise Misuse(f'there is no drill "{name}"', hint=f"one of: {', '.join(TABLE)}")
    module, _, kind = TABLE[name].partition(":")
    drill: Drill = getattr(import_module(module), kind)()
    return drill
