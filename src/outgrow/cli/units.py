"""Figures as people read them."""

from __future__ import annotations

_SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def size(count: float) -> str:
    """Bytes: 57 MB."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
    return f"{count:.0f} B"


def span(seconds: float) -> str:
    """A length of time: 0.8 s, 45 s, 12 min, 3 h."""
    for unit, name in _SPANS:
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
