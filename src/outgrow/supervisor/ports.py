"""Addresses on this machine: sockets opened early, and a loopback host of its own for each node."""

from __future__ import annotations

import errno
import socket

from outgrow.errors import FleetError, PortTaken
from outgrow.workload import Address


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises PortTaken, or FleetError when the address is none of this machine.

    The supervisor keeps it open across restarts of the node behind it: meanwhile connections wait
    in its backlog and are not refused.
    """
    try:
        return socket.create_server((address.host, address.port), backlog=2048, family=_family(address.host))
    except OSError as error:
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
