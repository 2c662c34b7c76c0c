"""A word with a Redis, for the fleet: one command over a socket, without a driver."""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

WITHIN_S = 1.8
"""Less than the supervisor waits for one attempt, and long enough to spare it another interpreter."""


class Account(NamedTuple):
    """Who asks which server."""

    host: str
    port: int
    user: str
    password: str

    @classmethod
    def of(cls, url: str, password: str) -> Account:
        """That of a URL without its password."""
        parts = urlsplit(url)
        return cls(str(parts.hostname), parts.port or 6379, str(parts.username), password)


def ask(account: Account, command: str) -> bytes:
    """What it answers, as it stands on the wire. Raises OSError when there is no answer or no way in."""
    with socket.create_connection((account.host, account.port), timeout=WITHIN_S) as connection:
        asked = f"AUTH {account.user} {account.password}\r\n{command}\r\nQUIT\r\n"
        connection.sendall(asked.encode())
        said = b""
        while part := connection.recv(4096):
            said += part
    entered, _, answer = said.partition(b"\r\n")
    if entered != b"+OK":
        raise PermissionError(entered.decode(errors="replace"))
    return answer.removesuffix(b"+OK\r\n")


def answers(account: Account) -> bool:
    """Whether it takes the password and a command."""
    try:
        return ask(account, "PING") == b"+PONG\r\n"
    except OSError:
        return False
