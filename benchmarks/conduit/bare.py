"""The example without Outgrow's middleware: what is left when `og.install(app)` does nothing."""

from __future__ import annotations

from typing import Any

from outgrow import Outgrow


def _nothing(self: Outgrow, app: Any) -> None:
    """In place of Outgrow.install."""


Outgrow.install = _nothing  # type: ignore[method-assign]

from conduit.app import app  # noqa: E402

__all__ = ["app"]
