"""Patroni, which waits less long when it stops a server of its own accord:

    python -m outgrow.engines.patroni_run FILE

By itself it looks once a second whether the server has stopped, and then gives the replicas one more second.
Both are most of the time for which a switchover holds writes. Whether the next primary has everything it asks
in any case, and where it has not, it waits for the server's end as before.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module

LOOKS_EVERY_S = 0.02
REPLICAS_HAVE_S = 0.02
THEIRS_S = 1
"""What Patroni sleeps there, and in that module nowhere else but where it then looks at all again."""


class _Time:
    """The module `time` for patroni.ha."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    @staticmethod
    def sleep(seconds: float) -> None:
        """As long as asked, but for that one place."""
        time.sleep(REPLICAS_HAVE_S if seconds == THEIRS_S else seconds)


def main() -> int:
    """Be Patroni."""
    # In this order: the second needs the first, which needs a part of the second.
    vars(import_module("patroni.postgresql"))["STOP_POLLING_INTERVAL"] = LOOKS_EVERY_S
    vars(import_module("patroni.ha"))["time"] = _Time()
    import_module("patroni.__main__").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
