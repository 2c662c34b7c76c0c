"""Patroni, which waits less long where nothing is to be waited for, and whose clock nobody can set:

    python -m outgrow.engines.patroni.run FILE

- By itself it looks once a second whether the server has stopped, then gives the replicas one more second.
  Both are most of the time for which a switchover holds writes. Whether the next primary has everything it
  asks in any case, and where it has not, it waits for the server's end as before.
- Then every other node waits two seconds for the next primary to take the lease before it follows it; where
  commits wait for a replica, they wait for that as well. The lease is taken within a tenth of a second, and
  whoever looks too early is woken up by etcd when it is.
- Before it takes a lease that has run out, it asks every node how far it is, and waits two seconds for each
  that hangs: as a rule that is the old primary, for whom everybody has waited for the whole lease.
- A planned change begins when who wants it says so (hand_over.py), not while writes still are to be held.
- It counts time by the clock of the day. Set back by an hour, it would not look again, nor renew its lease,
  for an hour.
"""

from __future__ import annotations

import inspect
import sys
import time
from importlib import import_module
from typing import Any

from outgrow.engines.patroni import hand_over

LOOKS_EVERY_S = 0.02
SLEEPS_S = {"on_shutdown": 0.02, "_on_shutdown": 0.02, "process_unhealthy_cluster": 0.2}
"""Functions of patroni.ha -> what they sleep here. The first two before they ask whether replicas have
everything, the last until somebody has the lease. Who has lost it waits as long as ever: a server that has
crashed is better started when it is known whom it follows."""

ANSWERS_S = 1.0
"""For so long a node is asked how far it is."""

# In this order: the second needs the first, which needs a part of the second.
CLOCKED = ("postgresql", "ha", "utils", "dcs", "dcs.etcd", "dcs.etcd3", "api", "__main__")
"""Its modules that measure how long something takes."""


class Clock:
    """The module `time` for Patroni."""

    def __init__(self) -> None:
        self._began = time.time() - _elapsed()

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def time(self) -> float:
        """What the clock of the day would say, had nobody set it since the start."""
        return self._began + _elapsed()

    def sleep(self, seconds: float) -> None:
        """As long as asked, but for those places."""
        time.sleep(SLEEPS_S.get(inspect.stack(0)[1].function, seconds))


def _elapsed() -> float:
    """Also while the machine sleeps: a lease runs out meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _impatient(patient: Any) -> Any:
    """Patroni's client of its other nodes, which does not ask for longer than that."""

    class Client(patient):  # type: ignore[misc]
        def __call__(self, member: object, method: str = "GET", *what: object, **how: Any) -> object:
            if method == "GET":
                how["timeout"] = min(how.get("timeout", ANSWERS_S), ANSWERS_S)
            return super().__call__(member, method, *what, **how)

    return Client


def prepare() -> None:
    """Change what is said above."""
    for name in CLOCKED:
        vars(import_module(f"patroni.{name}"))["time"] = Clock()
    vars(import_module("patroni.postgresql"))["STOP_POLLING_INTERVAL"] = LOOKS_EVERY_S
    client = vars(import_module("patroni.request"))
    client["PatroniRequest"] = _impatient(client["PatroniRequest"])
    hand_over.prepare()


def main() -> int:
    """Be Patroni."""
    prepare()
    import_module("patroni.__main__").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
