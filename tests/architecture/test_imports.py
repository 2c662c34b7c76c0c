"""Who may import whom (docs/architecture.md), and how little `import outgrow` loads.

The layers, and the parts of the runtime, are held by import-linter: `make lint`, pyproject.toml.
"""

from __future__ import annotations

import graphlib
import subprocess
import sys

import pytest

from tests.support.source import MODULES, Import, imports

TABLE: dict[str, set[str]] = {
    "errors": set(),
    "endpoints": {"topology"},  # late, in `discover`: one strict parser for library and fleet
    "workload": set(),
    "topology": set(),
    "load": set(),
    "runtime": {"endpoints"},
    "engines": {"topology", "workload", "endpoints"},
    "supervisor": {"workload"},
    "cluster": {"engines", "supervisor", "topology", "workload", "endpoints"},
    "render": {"engines", "topology", "workload"},
    "growth": {"cluster", "engines", "topology", "endpoints", "runtime"},
    "advisor": {"topology"},
    "backups": {"cluster", "supervisor", "engines", "topology", "workload", "endpoints"},
    "chaos": {"backups", "growth", "cluster", "supervisor", "engines", "load", "topology", "endpoints"},
    "stages": {"topology", "advisor", "growth", "chaos"},
}
"""Package -> what it may import besides errors and itself. cli and dashboard may import everything."""

DRIVERS: dict[str, tuple[str, ...]] = {
    "asyncpg": ("runtime/database/postgres", "engines/postgres", "growth/data/postgres"),
    "sqlite3": ("runtime/database/sqlite", "growth/data/sqlite.py"),
    "obstore": ("backups/s3.py",),
    "cachebox": ("runtime/cache/memory.py",),
    "opentelemetry": ("runtime/telemetry/otlp.py",),
    "uvicorn": ("runtime/serve.py",),
    "redis": ("runtime/cache/redis.py", "runtime/queue/redis.py", "runtime/sessions/redis.py"),
}
"""A driver -> the files named after its server: one place to look, one place to replace."""

EXCEPTIONS = {
    ("asyncpg", "runtime/database/upgrade.py"),  # a job with its own connection, before the tiers exist
    ("asyncpg", "engines/pgbouncer/ready.py"),  # a probe: whether a query goes through
    ("sqlite3", "runtime/database/migrate.py"),  # looks, without SQLAlchemy, whether there is work
    ("sqlite3", "cli/checkup.py"),  # `outgrow doctor` tells the version
}

IMPORTS = tuple(imports())


def package_of(module: str) -> str:
    """ "runtime" of "outgrow.runtime.database.sqlite"; nothing of "outgrow" itself."""
    return ".".join(module.split(".")[1:2])


def show(found: list[Import]) -> list[str]:
    return [f"{each.path}:{each.line} imports {each.imported}" for each in found]


def test_packages_import_only_what_the_table_allows() -> None:
    wrong = []
    for each in IMPORTS:
        package, imported = package_of(each.importer), package_of(each.imported)
        if not each.imported.startswith("outgrow.") or package in ("", "cli", "dashboard"):
            continue
        assert package in TABLE, f"{package} is missing from the table of docs/architecture.md"
        if imported not in TABLE[package] | {package, "errors"}:
            wrong.append(each)
    assert show(wrong) == []


def test_no_import_cycles_not_even_inside_functions() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for each in IMPORTS:
        if each.imported in MODULES and each.imported != each.importer:
            graph[each.importer].add(each.imported)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_imported_only_where_its_name_is(driver: str) -> None:
    wrong = [
        each
        for each in IMPORTS
        if each.imported.split(".")[0] == driver
        and not str(each.path).startswith(DRIVERS[driver])
        and (driver, str(each.path)) not in EXCEPTIONS
    ]
    assert show(wrong) == []


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after this statement, and had not before."""
    code = f"import sys; before = set(sys.modules)\n{statement}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_import_outgrow_loads_no_driver_and_no_control_code() -> None:
    loaded = loaded_by("import outgrow")
    assert {name for name in loaded if name.startswith("outgrow")} == {"outgrow", "outgrow.errors"}
    third_party = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"outgrow"}
    assert third_party == set()


def test_the_outgrow_class_loads_no_control_code_and_no_server_but_its_own() -> None:
    loaded = loaded_by("from outgrow import Outgrow")
    control = {name for name in TABLE if name not in ("errors", "endpoints", "runtime")} | {
        "cli",
        "dashboard",
    }
    assert {name for name in loaded if name.startswith("outgrow.") and package_of(name) in control} == set()
    heavy = {"asyncpg", "alembic", "click", "rich", "psutil", "uvicorn", "starlette", "opentelemetry"}
    assert {name for name in loaded if name.split(".")[0] in heavy} == set()
