"""Is a Redis ready? A PING with the application's password, which no argument and no variable may hold.

    python -m outgrow.engines.redis_ready URL

Exit code 0 when it has answered, 1 when it has not within two seconds. The password is in the file that
OUTGROW_SECRETS names.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from urllib.parse import urlsplit

from outgrow import endpoints

WITHIN_S = 1.8
"""Less than the supervisor waits for one attempt, and long enough to spare it another interpreter."""


def main(url: str) -> int:
    """Ask until it answers."""
    parts = urlsplit(url)
    password = endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords["sessions"]
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if answers(str(parts.hostname), parts.port or 6379, str(parts.username), password):
            return 0
        time.sleep(0.02)
    return 1


def answers(host: str, port: int, user: str, password: str) -> bool:
    """Whether it takes the password and a command."""
    try:
        with socket.create_connection((host, port), timeout=WITHIN_S) as connection:
            connection.sendall(f"AUTH {user} {password}\r\nPING\r\nQUIT\r\n".encode())
            said = b""
            while part := connection.recv(4096):
                said += part
    except OSError:
        return False
    return said.startswith(b"+OK\r\n+PONG\r\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
