"""Where the load goes: a URL, resolved once, on this machine unless the caller allows another."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from outgrow.errors import Misuse, OutgrowError


class Target(NamedTuple):
    """`address` is what is connected to, `host` what the Host header says, `prefix` what paths follow."""

    url: str
    host: str
    address: str
    port: int
    prefix: str


def resolve(url: str, *, allow_remote: bool = False) -> Target:
    """The target at a URL. Raises Misuse when it is no plain http URL, or not on this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise Misuse(f"{url} is no URL: {error}") from error
    if parts.scheme != "http" or not host:
        raise Misuse(f"{url} is no http:// URL", hint="the load generator speaks plain HTTP/1.1")
    if parts.query or parts.fragment or parts.username is not None:
        raise Misuse(f"{url} says more than a place", hint="queries and headers belong in the scenario")
    address = _address(host, port)
    if not allow_remote and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise Misuse(
            f"{host} ({address}) is not on this machine",
            hint="load may harm whoever does not expect it: --allow-remote if it is yours to load",
        )
    return Target(url, parts.netloc, address, port, parts.path.rstrip("/"))


def _address(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise OutgrowError(f"{host} cannot be resolved: {error.strerror}", hint="check the URL") from error
    return str(found[0][4][0])
