"""The `outgrow` command: one thin file a command, imported when it is called.

main -> root (group.py) -> up.py, status.py, ...     an error of any kind -> failures.py
                                                      what is printed      -> console.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    from outgrow.cli import run

    sys.exit(run.run(list(sys.argv[1:] if arguments is None else arguments)))
