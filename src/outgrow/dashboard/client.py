"""What a running dashboard knows, for a command that wants to show it and can do without."""

from __future__ import annotations

import urllib.request

import msgspec

from outgrow.dashboard.snapshot import Summary

WITHIN_S = 0.5


def summary(url: str) -> Summary | None:
    """The figures of the present, or None: no dashboard answers in time, or it knows nothing yet."""
    try:
        with urllib.request.urlopen(f"{url}/api/snapshot", timeout=WITHIN_S) as answer:  # noqa: S310, our own address
            return msgspec.json.decode(answer.read(), type=Summary | None)
    except (OSError, msgspec.DecodeError):
        return None
