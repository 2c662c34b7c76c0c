"""A slow machine: its processes run for a share of each period, and stand still in the rest.

It needs no privileges and slows down every request, however idle the machine is; a quota of the kernel
slows down only what would use more than that. `python -m outgrow.chaos.faults.slow SHARE PERIOD PID...`
does it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence

from outgrow.chaos.faults import helper
from outgrow.supervisor.orphans import Note

PERIOD_S = 0.05


class Slow(helper.Helped):
    """These processes get `share` of each period, from 0 to 1, until it is undone."""

    def __init__(
        self, name: str, processes: Sequence[Note], share: float, period_s: float = PERIOD_S
    ) -> None:
        pids = [str(each.pid) for each in processes]
        says = f"{name} gets {share:.0%} of each {period_s:g} s"
        super().__init__(says, "outgrow.chaos.faults.slow", [str(share), str(period_s), *pids])
        self.stops = processes

    async def undo(self) -> None:
        """They run all the time again."""
        await super().undo()
        for each in self.stops:  # also where the helper was killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGCONT)


def main(arguments: list[str]) -> int:
    """Stop and go until standard input ends."""
    share, period_s, pids = float(arguments[0]), float(arguments[1]), [int(each) for each in arguments[2:]]
    descriptors = [os.pidfd_open(pid) for pid in pids]
    helper.wait()
    helper.begun()
    try:
        while helper.goes_on():
            _send(descriptors, signal.SIGSTOP)
            time.sleep(period_s * (1 - share))
            _send(descriptors, signal.SIGCONT)
            time.sleep(period_s * share)
    finally:
        _send(descriptors, signal.SIGCONT)
    return 0


def _send(descriptors: list[int], number: signal.Signals) -> None:
    for each in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(each, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
