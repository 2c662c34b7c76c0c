"""Whether PgBouncer, and PostgreSQL behind it, answer. Run by the fleet as a probe:

    python -m outgrow.engines.pgbouncer.ready URL

The password is in the file that OUTGROW_SECRETS names.
"""

from __future__ import annotations

import asyncio
import os
import sys

from outgrow import endpoints

WITHIN_S = 1.8
"""Less than the supervisor waits for one attempt, and long enough to spare it another interpreter."""


async def answers(url: str, password: str) -> bool:
    """Whether it takes the password and a query, within the time."""
    import asyncpg

    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    connection = await asyncpg.connect(url, password=password, statement_cache_size=0)
                    await connection.execute("SELECT 1")
                    await connection.close()
                    return True
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await asyncio.sleep(0.02)
    except TimeoutError:
        return False


def main(url: str) -> int:
    """Ask until it answers."""
    password = endpoints.read_secrets(os.environ["OUTGROW_SECRETS"]).passwords["*"]
    return 0 if asyncio.run(answers(url, password)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
