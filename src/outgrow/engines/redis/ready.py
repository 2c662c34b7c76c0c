"""Is a Redis ready? A PING with the application's password, which no argument and no variable may hold.

    python -m outgrow.engines.redis.ready URL ROLE

Exit code 0 when it has answered, 1 when it has not within two seconds. The password is that of the role,
"sessions" or "cache", in the file that OUTGROW_SECRETS names.
"""

from __future__ import annotations

import os
import sys
import time

from outgrow import endpoints
from outgrow.engines.redis.client import WITHIN_S, Account, answers


def main(url: str, role: str) -> int:
    """Ask until it answers."""
    account = Account.of(url, endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords[role])
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if answers(account):
            return 0
        time.sleep(0.02)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
