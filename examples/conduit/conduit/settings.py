"""What may differ between two installations, from the environment: `[application.environment]`."""

import os

PUBLIC_URL = os.environ.get("CONDUIT_PUBLIC_URL", "").rstrip("/")
"""What an avatar's address begins with, such as "https://conduit.example". Empty: this very server."""

PASSWORD_PASSES = int(os.environ.get("CONDUIT_PASSWORD_PASSES", "2"))
PASSWORD_MEMORY_KIB = int(os.environ.get("CONDUIT_PASSWORD_MEMORY_KIB", "19456"))
"""What guessing one password costs: argon2id as OWASP recommends it where memory is shared."""
