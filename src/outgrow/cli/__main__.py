"""`python -m outgrow.cli`: the command where no `outgrow` script is on the PATH."""

from __future__ import annotations

from outgrow.cli import main

main()
