"""Makes what runs equal the topology: plans the workloads, runs them, publishes the endpoints.

Fleet.run         lock ─► end what a crash left ─► plan ─► publish ─► start ─► serve until told to stop
status, down      ask the running fleet over its control socket
start_detached    a Fleet in a process of its own
"""

from outgrow.cluster.control import down, status
from outgrow.cluster.detach import start_detached
from outgrow.cluster.fleet import Fleet
from outgrow.cluster.plan import migration_variables
from outgrow.cluster.state import running
from outgrow.cluster.status import NodeStatus, Status

__all__ = [
    "Fleet",
    "NodeStatus",
    "Status",
    "down",
    "migration_variables",
    "running",
    "start_detached",
    "status",
]
