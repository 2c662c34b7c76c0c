"""A part of an S3-compatible store as a place for files, by obstore.

Where it is, and who may, says the environment, with the names that every client of S3 knows:
AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.

Its calls block, in threads of ours. Those that can be awaited end in threads of its own, which may ask for
the interpreter when that is ending: two of three short processes were aborted so, with all their work done.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from outgrow.errors import FleetError

PART = 1 << 20
TIMEOUT = "60s"
RETRIES = 2
"""Of one request; the mirror tries again anyway."""

_CODE = re.compile(r"<Code>(\w+)</Code>")


class Bucket:
    """Everything below s3://bucket/prefix. All raise FleetError when the store does not do it."""

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        from obstore.store import S3Store

        parts = urlsplit(url)
        self._url = url
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        settings: dict[str, Any] = {
            "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
            "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": environment.get("AWS_SESSION_TOKEN"),
            "endpoint": endpoint,
        }
        self._store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options={"allow_http": (endpoint or "").startswith("http://"), "timeout": TIMEOUT},
            retry_config={"max_retries": RETRIES},
            **{name: value for name, value in settings.items() if value},
        )

    async def files(self) -> dict[str, int]:
        """Path -> size in bytes."""
        import obstore

        with self._told():
            found = await asyncio.to_thread(lambda: obstore.list(self._store).collect())
            return {each["path"]: each["size"] for each in found}

    async def put(self, path: str, content: Path | bytes) -> None:
        """Whole or not at all."""
        import obstore

        with self._told():
            await asyncio.to_thread(obstore.put, self._store, path, content)

    async def get(self, path: str, target: Path) -> None:
        """Into a file."""
        import obstore

        def copy() -> None:
            with target.open("wb") as file:
                for part in obstore.get(self._store, path).stream(min_chunk_size=PART):
                    file.write(part)

        with self._told():
            await asyncio.to_thread(copy)

    async def read(self, path: str) -> bytes:
        """A small file."""
        import obstore

        with self._told():
            return await asyncio.to_thread(lambda: bytes(obstore.get(self._store, path).bytes()))

    async def remove(self, path: str) -> None:
        """It need not be there."""
        import obstore

        with self._told():
            await asyncio.to_thread(obstore.delete, self._store, path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The store's code alone is told: in its whole answer there are parts of the request."""
        import obstore.exceptions

        try:
            yield
        except obstore.exceptions.BaseError as error:
            text = str(error)
            code = _CODE.search(text)
            why = code[1] if code else text.splitlines()[0].rpartition(" - ")[2]
            raise FleetError(f"{self._url}: {why}", hint="are AWS_ENDPOINT_URL and the keys right?") from None
