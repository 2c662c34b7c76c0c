"""The least of an HTTP client: GET over one connection that stays open, for the processes of this fleet."""

from __future__ import annotations

import asyncio

BODY_BYTES_MAX = 32 * 1024 * 1024


class Client:
    """Asks one process. Its answers carry their length: that is how Outgrow's own paths answer."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, accept: str = "*/*") -> tuple[int, bytes]:
        """Status and body. Raises OSError when it does not answer. The caller sets the limit of time."""
        kept = self._connection is not None
        try:
            try:
                return await self._exchange(path, accept)
            except (OSError, EOFError):
                if not kept:
                    raise
                self.close()  # it was closed by the other side meanwhile: that says nothing yet
                return await self._exchange(path, accept)
        except (EOFError, ValueError) as error:
            self.close()
            raise OSError(f"no answer from {self._address}: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    async def _exchange(self, path: str, accept: str) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = await asyncio.open_connection(*self._address)
        reader, writer = self._connection
        # The name under which a process knows its own machine, whatever address it listens on.
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n\r\n".encode("latin-1"))
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _read_head(head)
        return status, await reader.readexactly(length)


def _read_head(head: bytes) -> tuple[int, int]:
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first[9:12])
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
            if length <= BODY_BYTES_MAX:
                return status, length
    raise ValueError("an answer without a length, or far too long a one")
