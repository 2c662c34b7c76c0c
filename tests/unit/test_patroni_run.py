"""What is different about Patroni as the fleet runs it, in Patroni's own code."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from outgrow.engines.patroni import run as patroni_run
from tests.support.patroni import program

NAPS = """
import time
from types import SimpleNamespace
from outgrow.engines.patroni import run as patroni_run

if {prepared}:
    patroni_run.prepare()
from patroni.__main__ import Patroni

naps, patroni = [], Patroni.__new__(Patroni)
patroni.dcs = SimpleNamespace(loop_wait=1)
patroni.ha = SimpleNamespace(watch=lambda nap: naps.append(nap) or True)
patroni.next_run = vars(__import__("patroni.__main__", fromlist=["x"]))["time"].time()
patroni.schedule_next_run()
real = time.time
time.time = lambda: real() + {jump}
patroni.schedule_next_run()
print(*(round(nap) for nap in naps))
"""


def naps(jump_s: int, *, prepared: bool) -> list[int]:
    """For how long Patroni means to sleep before and after the machine's clock is set."""
    code = NAPS.format(jump=jump_s, prepared=prepared)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(each) for each in done.stdout.split()]


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_clock_that_is_set_changes_nothing(jump_s: int) -> None:
    """The lease lasts 20 s: who sleeps for an hour has lost it."""
    program()
    assert naps(jump_s, prepared=True) == [1, 1]
    assert naps(-3600, prepared=False) == [1, 3601], "Patroni has mended it: then ours may go"


def test_what_waits_less_long_is_still_there() -> None:
    program()
    code = "import patroni.postgresql, patroni.ha as ha, inspect; print(inspect.getsource(ha))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in patroni_run.SLEEPS_S:
        after = done.stdout.partition(f"def {name}(")[2].split("    def ")[0]
        assert "time.sleep(" in after, name
    clock = patroni_run.Clock()

    def process_unhealthy_cluster() -> None:
        clock.sleep(20)

    began = time.monotonic()
    process_unhealthy_cluster()
    clock.sleep(0.3)
    assert 0.5 <= time.monotonic() - began < 10


REFUSED = """
from types import SimpleNamespace
from outgrow.engines.patroni import hand_over

hand_over.prepare()
from patroni.ha import Ha
from patroni.postgresql import Postgresql

told = []
server = Postgresql.__new__(Postgresql)
server.connection_pool = SimpleNamespace(conn_kwargs=dict(host="127.0.0.1", port=1, dbname="postgres"))
Postgresql._do_stop = lambda *how: told.append("stopped")
ha = Ha.__new__(Ha)
ha.__dict__.update(
    state_handler=server, _rewind=SimpleNamespace(trigger_check_diverged_lsn=int, get_archive_command=str)
)
ha.dcs = SimpleNamespace(manual_failover=lambda *what: told.append(what))
ha.watchdog = SimpleNamespace(is_running=False)
ha.primary_stop_timeout = int
print(ha.demote("graceful"), told)
"""


def test_a_change_that_is_refused_is_forgotten_before_anything_is_stopped() -> None:
    """Here there is nobody to wait for the word with: in Patroni's own code, whose server cannot be asked."""
    program()
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None [('', '')]", done.stdout + done.stderr
