"""A cache with no room left: its Redis is full of what it may not throw away, and every value is refused.

It is filled as the application could fill it, by its own user: with keys that have no time to live.
`python -m outgrow.chaos.faults.fill APPLICATION SECRETS URL...` does it, and takes them away at its end.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from outgrow import endpoints
from outgrow.chaos.faults import helper
from outgrow.engines.redis.client import Account

SIZES = (1 << 18, 1 << 14, 1 << 9)
"""Of values, in bytes: the last gap is narrower than an entry."""

AGAIN_S = 0.05
WITHIN_S = 5.0


class Fill(helper.Helped):
    """The cache's nodes at these URLs, until it is undone."""

    def __init__(self, name: str, urls: Sequence[str], application: str, secrets: Path) -> None:
        says = f"{name} is full of what it may not throw away"
        super().__init__(says, "outgrow.chaos.faults.fill", [application, str(secrets), *urls])


class Filler:
    """Its keys are numbered."""

    def __init__(self, account: Account, application: str) -> None:
        self._prefix = f"outgrow:{application}:cache:fill:"
        self._socket = socket.create_connection((account.host, account.port), timeout=WITHIN_S)
        self._answers = self._socket.makefile("rb")
        self._keys = 0
        self._require(self._ask("AUTH", account.user, account.password))

    def fill(self) -> None:
        """Until there is room for nothing."""
        for size in SIZES:
            while not (answer := self._set("x" * size)).startswith(b"-OOM"):
                self._require(answer)

    def clear(self) -> None:
        """Take them away."""
        for number in range(self._keys):
            self._require(self._ask("DEL", f"{self._prefix}{number}"))

    def _set(self, value: str) -> bytes:
        answer = self._ask("SET", f"{self._prefix}{self._keys}", value)
        self._keys += answer.startswith(b"+")
        return answer

    def _ask(self, *words: str) -> bytes:
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self._socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        return self._answers.readline()

    def _require(self, answer: bytes) -> None:
        if answer[:1] not in (b"+", b":"):
            raise OSError(answer.decode(errors="replace").strip() or "the connection was lost")


def main(arguments: list[str]) -> int:
    """Keep them full until standard input ends."""
    application, secrets, *urls = arguments
    try:
        password = endpoints.read_secrets(secrets).passwords["cache"]
        with contextlib.ExitStack() as stack:
            fillers = [Filler(Account.of(url, password), application) for url in urls]
            for each in fillers:
                stack.callback(each.clear)
            _work(fillers)
    except OSError as error:
        return helper.refuse(str(error))
    return 0


def _work(fillers: Sequence[Filler]) -> None:
    helper.wait()
    for each in fillers:
        each.fill()
    helper.begun()
    while helper.goes_on():
        for each in fillers:
            each.fill()
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
