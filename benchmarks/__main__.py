"""python -m benchmarks [NAME...] [--quick] [--write]"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

NAMES = (
    "fastpath",
    "overhead",
    "startup",
    "strategies",
    "stale_set",
    "expiry_storm",
    "hot_key",
    "cached_mix",
    "example",
)
EXTRA = ("kinds",)
NO_CORE = ("strategies", "stale_set", "expiry_storm", "hot_key", "cached_mix")
"""Those that share all cores with their database."""


def main() -> int:
    """Run what is asked for, by default everything but the extra tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Ratios between versions, measured in one run. Let the machine be idle.",
        epilog="kinds: the example's mix one kind of request at a time, to see where the time goes",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES + EXTRA)}")
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    unknown = [name for name in arguments.names if name not in NAMES + EXTRA]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(NAMES + EXTRA)}")
    for name in arguments.names or NAMES:
        print(f"== {name}", flush=True)
        text = _run(name, quick=arguments.quick)
        print(text, flush=True)
        if arguments.write:
            _write(name, text, quick=arguments.quick)
    return 0


def _end(number: int, frame: object) -> None:
    """SIGTERM is an exception like Ctrl-C, so that the servers under test are ended, too."""
    sys.exit(128 + number)


def _run(name: str, *, quick: bool) -> str:
    module = importlib.import_module(f"benchmarks.{name}")
    text: str = module.run(quick=quick)
    return text


def _write(name: str, text: str, *, quick: bool) -> None:
    from benchmarks import report

    report.write(name.replace("_", " "), text, quick=quick, pinned=name not in NO_CORE)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    sys.exit(main())
