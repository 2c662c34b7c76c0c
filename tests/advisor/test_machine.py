"""This machine, as /proc tells it."""

from __future__ import annotations

import os
from pathlib import Path

from outgrow.advisor.machine import Meter


def test_a_look_at_this_machine(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    busy = sum(i * i for i in range(300_000))
    machine = meter.look()
    assert busy > 0
    assert 0 <= machine.cpu <= 1 and len(machine.cores) == os.cpu_count()
    assert all(0 <= core <= 1 for core in machine.cores) and machine.load >= 0
    assert 2**27 < machine.memory_used < machine.memory_total
    assert 0 < machine.disk_used < machine.disk_total
    assert machine.disk_read >= 0 and machine.disk_written >= 0
