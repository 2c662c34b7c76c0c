"""An emulated host: whatever a program starts there, and sets free, ends with it.

    python -I -S host.py PROGRAM ARGUMENT...

    supervisor ─► host ─► init, PID 1 of a namespace ─► PROGRAM ─► ...
                   └ passes signals on ────────────────────┘

When PROGRAM ends, or any of the first three is killed, the kernel ends everything in the namespace at once:
a PostgreSQL that Patroni has set free, too. Who has seen this process end by itself knows that the host is
empty. It is a script of the standard library alone: it stays for as long as the host does.
"""

import ctypes
import os
import select
import signal
import sys

NOBODY = 65534
"""It must be in the list of users: PostgreSQL asks for its name."""

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
CANNOT_EXECUTE, KILLED = 127, 128
"""Exit codes as a shell has them: the second is added to the signal."""

libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Run the program in a host of its own, and end as it ends."""
    enter_namespaces()
    alive, ours = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(ours)
        be_init(argv, alive)
    os.close(alive)
    pass_signals_on(init)
    end_like(os.waitpid(init, 0)[1])


def enter_namespaces() -> None:
    """Users, mounts, processes. Root is nobody there; anybody else stays who they are."""
    uid, gid = os.getuid(), os.getgid()
    inner_uid, inner_gid = (NOBODY, NOBODY) if uid == 0 else (uid, gid)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID):
        fail("this kernel gives no namespaces to this user")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inner_uid} {uid} 1"),
        ("gid_map", f"{inner_gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def be_init(argv: list[str], alive: int) -> None:
    """PID 1: starts the program, takes in what others leave behind, and ends with the program."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(0)  # whoever has started it was gone before that
    # Else its programs would see the processes outside, under numbers that mean others inside.
    libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    if libc.mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None):
        fail("this kernel mounts no /proc in a namespace of this user")
    program = os.fork()
    if program == 0:
        os.close(alive)
        execute(argv)
    pass_signals_on(program)
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else KILLED + os.WTERMSIG(status))


def execute(argv: list[str]) -> None:
    """Become the program."""
    for number in PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606, a list of arguments and no shell
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        os._exit(CANNOT_EXECUTE)


def pass_signals_on(pid: int) -> None:
    """What this process is asked, that one is."""
    for number in PASSED_ON:
        signal.signal(number, lambda asked, frame: os.kill(pid, asked))


def end_like(status: int) -> None:
    """With the same exit code, or by the same signal."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def fail(what: str) -> None:
    """Say why, and end."""
    sys.stderr.write(f"{what}: {os.strerror(ctypes.get_errno())}\n")
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
