"""What a client holds of its session: a random id that this application has signed.

    version  key id  id        mac
    1 byte   1 byte  32 bytes  32 bytes      base64url: 88 characters, no padding

The store knows the session under a hash of the id, so that whoever reads the store has no cookie. An
id without a right signature is not even looked for, and no id is ever taken from a client.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping

VERSION = 1
ID_BYTES = 32
TICKET_LENGTH = 88


class Tickets:
    """Makes and checks them. `keys` are by number; the highest signs, all of them are accepted."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        self._keys = dict(keys)
        self._newest = max(self._keys)

    def new(self) -> tuple[str, str]:
        """A ticket that nobody has yet, and the key under which the store is to know its session."""
        body = bytes((VERSION, self._newest)) + secrets.token_bytes(ID_BYTES)
        ticket = urlsafe_b64encode(body + self._mac(self._newest, body)).decode()
        return ticket, store_key(body[2:])

    def key_of(self, ticket: bytes) -> str | None:
        """The key of the session that this ticket is for, or None when it is not one of ours."""
        if len(ticket) != TICKET_LENGTH:
            return None
        try:
            raw = urlsafe_b64decode(ticket)
        except (binascii.Error, ValueError):
            return None
        if urlsafe_b64encode(raw) != ticket:  # the decoder passes over what does not belong there
            return None
        body, mac = raw[: 2 + ID_BYTES], raw[2 + ID_BYTES :]
        if body[0] != VERSION or body[1] not in self._keys:
            return None
        if not hmac.compare_digest(mac, self._mac(body[1], body)):
            return None
        return store_key(body[2:])

    def _mac(self, key: int, body: bytes) -> bytes:
        return hmac.digest(self._keys[key], body, "sha256")


def store_key(identifier: bytes) -> str:
    """64 hex digits. The id is random and long, so its bare hash gives nothing away."""
    return hashlib.sha256(identifier).hexdigest()
