"""What `import outgrow.load` costs."""

from __future__ import annotations

import subprocess
import sys


def test_it_loads_nothing_but_itself() -> None:
    code = (
        "import sys; before = set(sys.modules)\nimport outgrow.load\n"
        "print(*sorted(name for name in set(sys.modules) - before if '.' not in name or 'outgrow' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.startswith("outgrow")} <= {
        "outgrow",
        "outgrow.errors",
        "outgrow.load",
    }
    assert loaded - set(sys.stdlib_module_names) <= {"outgrow", "outgrow.errors", "outgrow.load"}
