"""What a server keeps in place of a password: with it one can check it, and not log in anywhere."""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096
"""PostgreSQL's own number. The passwords are random and long, so more would protect nothing."""


def verifier(role: str, password: str) -> str:
    """The SCRAM secret of a role, in PostgreSQL's form (RFC 5803). The password must be ASCII.

    Always the same for the same password: PgBouncer can only pass a login on to a PostgreSQL that has
    exactly the secret that it has itself.
    """
    salt = hmac.digest(password.encode(), role.encode(), "sha256")[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_base64(salt)}${_base64(stored)}:{_base64(server)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
