"""Sockets opened early, and loopback hosts."""

from __future__ import annotations

import ipaddress
import os
import socket

import pytest

from outgrow.errors import FleetError, PortTaken
from outgrow.supervisor import ports
from outgrow.workload import Address


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.90.3.1", "::1"])
def test_a_listener_on_any_loopback_address(host: str) -> None:
    with ports.listen(Address(host, 0)) as listener:
        port = int(listener.getsockname()[1])
        assert not listener.get_inheritable()
        assert not ports.is_free(Address(host, port))
        with pytest.raises(PortTaken, match=f"{host}:{port} is taken"):
            ports.listen(Address(host, port))
        socket.create_connection((host, port)).close()
    assert ports.is_free(Address(host, port)), "again at once, though a connection has just ended"


def test_a_name_that_is_none() -> None:
    with pytest.raises(FleetError, match=r"no-such-host.invalid:80 cannot be listened on"):
        ports.listen(Address("no-such-host.invalid", 80))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen anywhere")
def test_a_port_below_1024() -> None:
    with pytest.raises(FleetError, match="--port"):
        ports.listen(Address("127.0.0.1", 1))


def test_every_node_of_every_fleet_has_a_host_of_its_own() -> None:
    hosts = {ports.loopback_host(fleet, node) for fleet in range(0, 64 * 256, 7) for node in (1, 2, 254)}
    assert len(hosts) == 3 * len(range(0, 64 * 256, 7))
    assert all(ipaddress.ip_address(host).is_loopback and not host.startswith("127.0.") for host in hosts)
