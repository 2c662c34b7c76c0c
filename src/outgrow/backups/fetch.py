"""One file of the log for a database that is being restored: PostgreSQL's restore_command.

    python -m outgrow.backups.fetch FOLDER NAME TARGET

The newest file is still being written: it counts as far as it goes. Exit code 1: there is none.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def fetch(folder: Path, name: str, target: Path) -> bool:
    """Whether it was there."""
    for found in (folder / name, folder / f"{name}.partial"):
        if found.is_file():
            shutil.copyfile(found, target)
            return True
    return False


if __name__ == "__main__":
    sys.exit(0 if fetch(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])) else 1)
