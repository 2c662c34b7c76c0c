"""Addresses on this machine: sockets opened early, and a loopback host of its own for each node.

Several sockets can share an address (SO_REUSEPORT): the workers of one server, and an old and a new
owner while one hands over to the other. The first of them is bound alone, which fails where anybody
else listens, and only then lets others of this user join: so no two fleets share a port by accident.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from outgrow.errors import FleetError, PortTaken
from outgrow.workload import Address

BACKLOG = 2048
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104, only compared with


def listen(address: Address, *, joins: bool = False) -> socket.socket:
    """A listening socket. Raises PortTaken, or FleetError when the address is none of this machine.

    The supervisor keeps it open across restarts of the node behind it: meanwhile connections wait
    in its backlog and are not refused. `joins`: others of this fleet have the address already.
    """
    opened = _bound(address, joins=joins)
    try:
        opened.listen(BACKLOG)
    except OSError:  # somebody of this user listens there since it was bound
        opened.close()
        raise PortTaken(address.host, address.port) from None
    return opened


def claim(address: Address, *, joins: bool = False) -> socket.socket:
    """A socket that has the address and does not listen: for a program that joins it. Raises like listen.

    Sockets that do not listen keep nobody out, unless one has listened since the address was free, and
    none of them allows its address to be used again. So one listens here for a moment.
    """
    with contextlib.nullcontext() if joins else listen(address):
        bound = _bound(address, joins=True)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return bound


def silence(listener: socket.socket) -> None:
    """Connections are refused from now on, and those that wait are reset.

    The socket keeps its address, and whoever has inherited it can listen again.
    """
    with contextlib.suppress(OSError):  # it does not listen
        listener.shutdown(socket.SHUT_RDWR)


def _bound(address: Address, *, joins: bool) -> socket.socket:
    bound = socket.socket(_family(address.host), socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, joins)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address.host, address.port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address.host, address.port) from None
        if error.errno == errno.EACCES:
            raise FleetError(
                f"this user may not listen on {address}", hint="choose a port above 1023 with `--port N`"
            ) from None
        raise FleetError(
            f"{address} cannot be listened on: {error.strerror}",
            hint="check host and port under [application]",
        ) from None
    return bound


def overlap(one: Address, other: Address) -> bool:
    """Whether sockets on both would share connections."""
    hosts = {one.host, other.host}
    return one.port == other.port and (len(hosts) == 1 or not hosts.isdisjoint(EVERYWHERE))


def is_free(address: Address) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_server((address.host, address.port), family=_family(address.host)).close()
    except OSError:
        return False
    return True


def free_port(usual: Address) -> int:
    """The port of this address if it is free, else any free one."""
    if is_free(usual):
        return usual.port
    with socket.create_server((usual.host, 0), family=_family(usual.host)) as probe:
        return int(probe.getsockname()[1])


def loopback_host(fleet: int, node: int) -> str:
    """The address of a node as its own host: 127.A.B.node, with A and B of the fleet.

    Linux answers on all of 127.0.0.0/8, so every emulated host can use its server's usual port.
    """
    return f"127.{64 + fleet // 256 % 64}.{fleet % 256}.{node}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
