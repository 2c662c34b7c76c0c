"""From nothing to ready: order, readiness, what a child is given, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from outgrow.errors import ApplicationBroken, FleetError, NodeFailed, PortTaken, tell
from outgrow.workload import Address, File, Probe, Stop, Workload
from tests.supervisor.conftest import SERVER, Supervised, forever, free_address, python, runs, shell


async def test_jobs_end_before_what_comes_after_them_starts(fleet: Supervised, tmp_path: Path) -> None:
    story = tmp_path / "story"
    await fleet.start(
        Workload("app", shell(f"echo app >> {story}; exec sleep 1000"), after=("migrate",)),
        Workload("migrate", shell(f"sleep 0.2; echo migrate >> {story}"), kind="job", after=("db",)),
        Workload(
            "db",
            shell(f"sleep 0.2; echo db >> {story}; exec sleep 1000"),
            readiness=Probe("command", argv=("test", "-s", str(story))),
        ),
    )
    assert story.read_text().split()[:2] == ["db", "migrate"]
    assert fleet.states("db") == ["starting", "ready"] and fleet.states("migrate") == ["starting", "done"]
    assert fleet["migrate"].pid is None and runs(fleet["app"].pid)
    assert set(fleet.notes) == {"db", "app"}


async def test_ready_when_it_answers_2xx(fleet: Supervised) -> None:
    address = free_address()
    text = f"""
import http.server, time
started = time.monotonic()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/up" and time.monotonic() > started + 0.3 else 503)
        self.end_headers()
http.server.HTTPServer(("{address.host}", {address.port}), Handler).serve_forever()
"""
    await fleet.start(
        Workload("web", (sys.executable, "-c", text), readiness=Probe("http", address, path="/up"))
    )
    assert fleet.log("web").count(" 503 ") >= 1 and fleet.log("web").count(" 200 ") == 1


async def test_ready_when_it_accepts(fleet: Supervised) -> None:
    address = free_address()
    text = (
        f"import socket, time; s = socket.create_server(('{address.host}', {address.port})); time.sleep(1000)"
    )
    await fleet.start(Workload("db", python(text), readiness=Probe("tcp", address)))
    socket.create_connection((address.host, address.port)).close()


async def test_a_server_that_speaks_no_http_is_not_ready(fleet: Supervised) -> None:
    address = free_address()
    text = f"""
import socket
listener = socket.create_server(("{address.host}", {address.port}))
while True:
    connection, _ = listener.accept()
    try:
        connection.sendall(b"x" * 200_000)
    except OSError:
        pass
    connection.close()
"""
    node = Workload("web", python(text), readiness=Probe("http", address, timeout_s=0.5))
    with pytest.raises(NodeFailed, match=r"was not ready within 0.5 s"):
        await fleet.start(node)


async def test_never_ready(fleet: Supervised) -> None:
    node = Workload(
        "slow",
        shell("echo still thinking; exec sleep 1000"),
        readiness=Probe("tcp", free_address(), timeout_s=0.3),
    )
    with pytest.raises(NodeFailed, match=r"node slow was not ready within 0.3 s") as raised:
        await fleet.start(node)
    assert raised.value.log_tail == ("still thinking",)
    assert fleet.states("slow")[-1] == "failed" and fleet.notes == {} and fleet.processes() == []


async def test_a_probe_that_cannot_be_executed(fleet: Supervised) -> None:
    node = forever("db", readiness=Probe("command", argv=("/nowhere/is_ready",)))
    with pytest.raises(NodeFailed, match=r"cannot be asked whether it is ready.*/nowhere/is_ready"):
        await fleet.start(node)
    assert fleet.processes() == []


async def test_a_probe_that_hangs_ends_with_its_children(fleet: Supervised) -> None:
    hangs = Probe("command", argv=shell("sleep 1000; true"), timeout_s=0.3)
    with pytest.raises(NodeFailed, match="not ready"):
        await fleet.start(forever("db", readiness=hangs))
    assert fleet.processes() == []


@pytest.mark.parametrize("kind", ["job", "service"])
async def test_what_it_told_before_its_end_is_raised(fleet: Supervised, kind: str) -> None:
    line = tell(ApplicationBroken("app.py, line 3: no such name", hint="correct it"))
    argv = python(f"import sys; print('noise'); print('''{line}'''); print('late noise'); sys.exit(78)")
    node = Workload("app", argv, kind=kind, readiness=Probe("tcp", free_address()))  # type: ignore[arg-type]
    with pytest.raises(ApplicationBroken, match="line 3") as raised:
        await fleet.start(node)
    assert raised.value.hint == "correct it" and fleet.states("app")[-1] == "failed"


async def test_what_it_told_is_found_among_the_requests_of_its_predecessor(fleet: Supervised) -> None:
    """Both write into one log while a new version takes over."""
    line = tell(ApplicationBroken("app.py, line 3: no such name"))
    request = '{"logger":"outgrow.access","method":"GET","path":"/notes","status":200,"ms":0.07}'
    argv = python(
        "import sys; print(sys.argv[1]); print((sys.argv[2] + '\\n') * 4000); sys.exit(78)", line, request
    )
    with pytest.raises(ApplicationBroken, match="line 3"):
        await fleet.start(Workload("app", argv, kind="job"))


async def test_a_job_that_fails_stops_the_start(fleet: Supervised) -> None:
    fleet.logs.path("migrate").write_text("of an earlier run\n")
    job = Workload("migrate", shell("echo broken >&2; exit 3"), kind="job")
    with pytest.raises(NodeFailed, match=r"failed \(exit code 3\)") as raised:
        await fleet.start(job, forever("app", after=("migrate",)))
    assert raised.value.log_tail == ("broken",)
    assert fleet.states("app") == []


async def test_a_service_that_dies_while_it_starts(fleet: Supervised) -> None:
    node = Workload("app", shell("kill -SEGV $$"), readiness=Probe("tcp", free_address()))
    with pytest.raises(NodeFailed, match=r"ended while it started \(killed by SIGSEGV\)"):
        await fleet.start(node)


@pytest.mark.parametrize("sockets", [0, 1, 5])
async def test_not_executable(fleet: Supervised, tmp_path: Path, sockets: int) -> None:
    (tmp_path / "text").write_text("no program")
    listen = tuple(free_address() for _ in range(sockets))
    with pytest.raises(NodeFailed, match=r"cannot be started: .*Permission denied.*text"):
        await fleet.start(forever("db"), Workload("app", (str(tmp_path / "text"),), listen=listen))
    assert fleet["db"].state == "ready" and fleet["app"].state == "failed"
    await fleet.stop()
    assert fleet["db"].state == "stopped"


async def test_a_directory_that_does_not_exist(fleet: Supervised) -> None:
    with pytest.raises(NodeFailed, match=r"cannot be started: .*/nowhere"):
        await fleet.start(forever("app", directory="/nowhere"))


async def test_a_file_that_cannot_be_written(fleet: Supervised, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = File(str(tmp_path / "file" / "configuration"), "text")
    with pytest.raises(NodeFailed, match=r"cannot be started: .*file"):
        await fleet.start(forever("app", files=(inside,)))


async def test_its_files_are_there_first(fleet: Supervised, tmp_path: Path) -> None:
    path = tmp_path / "new" / "app.conf"
    job = Workload("job", ("cat", str(path)), kind="job", files=(File(str(path), "höher\n", 0o600),))
    await fleet.start(job)
    assert fleet.log("job") == "höher\n" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["app.conf"]


async def test_a_taken_port(fleet: Supervised) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        listen = (free_address(), Address("127.0.0.1", port))
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port} is taken"):
            await fleet.start(forever("db"), forever("app", listen=listen))
    assert fleet.changes == [], "nothing is started before all sockets are open"


async def test_an_address_of_another_machine(fleet: Supervised) -> None:
    with pytest.raises(FleetError, match=r"203.0.113.1:8000 cannot be listened on"):
        await fleet.start(forever("app", listen=(Address("203.0.113.1", 8000),)))


async def test_it_inherits_its_sockets_in_order_and_no_other_descriptor(fleet: Supervised) -> None:
    text = """
import os, socket
numbers = [int(number) for number in os.environ["OUTGROW_LISTEN_FDS"].split(",")]
print([socket.socket(fileno=number).getsockname()[1] for number in numbers])
print(sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)))
print(numbers)
"""
    listen = tuple(free_address() for _ in range(4))
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        await fleet.start(Workload("app", python(text), kind="job", listen=listen))
    finally:
        os.close(leaked)
    ports, inherited, numbers = map(eval, fleet.log("app").splitlines())
    assert ports == [address.port for address in listen]
    assert len(numbers) == 4 and leaked not in inherited
    assert inherited == [0, 1, 2], "Python has closed the sockets after their use, and there was nothing else"


async def test_its_environment(fleet: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGROW_LISTEN_FDS", "7")
    monkeypatch.setenv("FROM_ABOVE", "inherited")
    environment = {"SECRET": "hush", "OUTGROW_FLEET": "not to be forged"}
    await fleet.start(Workload("app", ("env",), kind="job", environment=environment), forever("db"))
    told = dict(line.split("=", 1) for line in fleet.log("app").splitlines() if "=" in line)
    assert told["FROM_ABOVE"] == "inherited" and told["SECRET"] == "hush"
    assert told["OUTGROW_FLEET"] == fleet.fleet
    assert "OUTGROW_LISTEN_FDS" not in told, "those were for the supervisor"


async def test_a_secret_is_in_no_command_line(fleet: Supervised) -> None:
    await fleet.start(
        forever("db", environment={"SECRET": "hush"}, unprivileged=True),
        Workload("app", python(SERVER), environment={"SECRET": "hush"}, listen=(free_address(),)),
    )
    for name in ("db", "app"):
        assert "hush" not in Path(f"/proc/{fleet[name].pid}/cmdline").read_text()


async def test_its_own_session_and_nothing_to_read(fleet: Supervised) -> None:
    await fleet.start(forever("app"))
    pid = fleet["app"].pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert stat.S_IMODE(fleet.logs.path("app").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
async def test_unprivileged_under_root(fleet: Supervised, tmp_path: Path) -> None:
    address = free_address()
    await fleet.start(
        Workload("id", shell("id -u; id -g"), kind="job", unprivileged=True),
        Workload(
            "db", python(SERVER), listen=(address,), readiness=Probe("http", address), unprivileged=True
        ),
    )
    assert fleet.log("id").split() == ["65534", "65534"]
    assert Path(f"/proc/{fleet['db'].pid}/cmdline").read_text().startswith(sys.executable), "no wrapper stays"
    other = Supervised(tmp_path, "other")
    with pytest.raises(NodeFailed, match=r"exit code 127(.|\n)*/nowhere/program"):
        await other.start(Workload("no", ("/nowhere/program",), kind="job", unprivileged=True))
    await other.stop()


async def test_nothing_starts_once_it_is_stopping(fleet: Supervised) -> None:
    await fleet.stop()
    with pytest.raises(FleetError, match="being stopped"):
        await fleet.start(forever("app"))


async def test_twenty(fleet: Supervised) -> None:
    names = [f"node-{number}" for number in range(20)]
    stop = Stop(grace_s=5)
    await fleet.start(*(forever(name, stop=stop) for name in names))
    assert len(set(fleet.processes())) == len(fleet.notes) == 20
    async with asyncio.timeout(20):
        await fleet.stop()
    assert {fleet[name].state for name in names} == {"stopped"}
