"""Which of several sockets on one address gets the new connections: how a port changes its owner.

    bind order:   [ old | old | new ]      the kernel spreads new connections over all of them (SO_REUSEPORT)
    steered:      [  .  |  .  | all ]      a program of the kernel (classic BPF) chooses among the new ones
    queues empty: the old ones have accepted what was theirs, and can close: nobody is refused or reset

The program is attached through any one socket of the group and needs no privilege. When it names a
socket that has closed meanwhile, the kernel spreads as before (socket(7), SO_ATTACH_REUSEPORT_CBPF).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from outgrow.workload import Address

_ATTACH = getattr(socket, "SO_ATTACH_REUSEPORT_CBPF", 51)
_DETACH = 68
"""SO_DETACH_REUSEPORT_BPF."""

# linux/filter.h: load a random number, A % K, A + K, return A.
_RANDOM = (0x20, 0xFFFFF000 + 56)
_MODULO, _ADD, _RETURN = 0x94, 0x04, 0x16
_LISTENING = "0A"
_TCP_INFO_BYTES = 104
_WAITING_AT = 24
"""tcpi_unacked of a listening socket: how many connections wait to be accepted (linux/tcp.h)."""


def steer(member: socket.socket, first: int, count: int) -> None:
    """New connections go to `count` sockets of the group, the first of them at this place in its order."""
    instructions = (_RANDOM, (_MODULO, count), (_ADD, first), (_RETURN, 0))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", c, 0, 0, k) for c, k in instructions))
    header = struct.pack("HP", len(instructions), ctypes.addressof(program))
    member.setsockopt(socket.SOL_SOCKET, _ATTACH, header)


def spread(member: socket.socket) -> None:
    """New connections go to every socket of the group again."""
    try:
        member.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
    except OSError:  # it was not steered
        return


def waiting(sockets: Iterable[socket.socket]) -> int:
    """How many connections these have that nobody has accepted yet."""
    told = (each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES) for each in sockets)
    return sum(int(struct.unpack_from("I", each, _WAITING_AT)[0]) for each in told)


def listens(member: socket.socket) -> bool:
    """Whether it takes connections: that of a server which is down may not."""
    return bool(member.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def listeners(address: Address) -> int:
    """How many sockets listen at exactly this address, whoever has them."""
    table = "tcp6" if ":" in address.host else "tcp"
    wanted = f"{_as_the_kernel_says(address.host)}:{address.port:04X}"
    rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return sum(row[1] == wanted and row[3] == _LISTENING for row in rows)


def _as_the_kernel_says(host: str) -> str:
    """An address in /proc/net/tcp: words of the machine's own byte order, in hexadecimal."""
    packed = ip_address(socket.getaddrinfo(host, None)[0][4][0]).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)
