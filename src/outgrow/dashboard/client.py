"""What a running dashboard knows, for a command that wants to show it and can do without."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import msgspec

from outgrow.dashboard.snapshot import Summary

WITHIN_S = 0.5


def summary(url: str) -> Summary | None:
    """The figures of the present, or None: no dashboard answers in time, or it knows nothing yet."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WITHIN_S)
    try:
        connection.request("GET", "/api/snapshot")
        return msgspec.json.decode(connection.getresponse().read(), type=Summary | None)
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return None
    finally:
        connection.close()
