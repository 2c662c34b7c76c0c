"""Patroni, which waits less long when it stops a server of its own accord:

    python -m outgrow.engines.patroni_run FILE

By itself it looks once a second whether the server has stopped, and then gives the replicas one more second.
Both are most of the time for which a switchover holds writes. Whether the next primary has everything it asks
in any case, and where it has not, it waits for the server's end as before.

Then every other node waits two seconds for the next primary to take the lease before it follows it; where
commits wait for a replica, they wait for that as well. The lease is taken within a tenth of a second, and
whoever looks too early is woken up by etcd when it is.

And before it takes a lease that has run out, it asks every node how far it is, and waits two seconds for each
that hangs: as a rule that is the old primary, for whom everybody has waited for the whole lease.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

LOOKS_EVERY_S = 0.02
SLEEPS_S: dict[float, float] = {1: 0.02, 2: 0.2}
"""What Patroni sleeps in that module -> what it sleeps here.

1: before it asks whether replicas have everything. 2: until somebody has the lease. And both where it has
changed who is to confirm commits, and then looks whether they do: if not yet, it does in its next round.
"""


ANSWERS_S = 1.0
"""For so long a node is asked how far it is."""


def _impatient(patient: Any) -> Any:
    """Patroni's client of its other nodes, which does not ask for longer than that."""

    class Client(patient):  # type: ignore[misc]
        def __call__(self, member: object, method: str = "GET", *what: object, **how: Any) -> object:
            if method == "GET":
                how["timeout"] = min(how.get("timeout", ANSWERS_S), ANSWERS_S)
            return super().__call__(member, method, *what, **how)

    return Client


class _Time:
    """The module `time` for patroni.ha."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        """As long as asked, but for those places."""
        time.sleep(SLEEPS_S.get(seconds, seconds))


def main() -> int:
    """Be Patroni."""
    # In this order: the second needs the first, which needs a part of the second.
    vars(import_module("patroni.postgresql"))["STOP_POLLING_INTERVAL"] = LOOKS_EVERY_S
    vars(import_module("patroni.ha"))["time"] = _Time()
    client = vars(import_module("patroni.request"))
    client["PatroniRequest"] = _impatient(client["PatroniRequest"])
    import_module("patroni.__main__").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
