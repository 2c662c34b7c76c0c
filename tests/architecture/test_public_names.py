"""What `from outgrow import ...` offers: complete, loadable, and nothing besides."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator

import outgrow
from outgrow import errors
from tests.support.source import SOURCE, files


def test_every_public_name_is_listed_once_and_can_be_had() -> None:
    assert sorted(outgrow.__all__) == sorted(set(outgrow.__all__))
    for name in outgrow.__all__:
        assert getattr(outgrow, name) is not None
    assert dir(outgrow) == sorted(outgrow.__all__)
    assert len(outgrow.__all__) <= 15


def test_public_names_are_documented() -> None:
    for name in outgrow.__all__:
        value = getattr(outgrow, name)
        if inspect.isclass(value):
            assert value.__doc__, name


def test_every_lazy_name_is_listed() -> None:
    """A type checker sees the imports under TYPE_CHECKING: they, the table and __all__ agree."""
    seen = {
        alias.name
        for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("outgrow.")
        for alias in node.names
    }
    assert seen <= set(outgrow.__all__)


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def test_every_public_class_function_and_method_says_what_it_is_for() -> None:
    silent = [
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path in files()
        for node in _public(ast.parse(path.read_text()))
        if ast.get_docstring(node) is None and not _says_it_itself(node)
    ]
    assert silent == []


def _public(parent: ast.Module | ast.ClassDef) -> Iterator[Definition]:
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def _says_it_itself(node: Definition) -> bool:
    """A protocol's names, and a function of a line or two, need no sentence."""
    if isinstance(node, ast.ClassDef):
        return any("Protocol" in ast.unparse(base) for base in node.bases)
    return len(node.body) <= 2


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        path
        for path in files()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


# --- The tree of errors ----------------------------------------------------------------------------


def drawn() -> dict[str, str]:
    """Class -> base, as drawn at the top of errors.py."""
    assert errors.__doc__ is not None
    bases: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    (?P<indent>(?:│   |    )*)(?P<branch>├── |└── )?(?P<name>[A-Z]\w+)", line)
        if match is None:
            continue
        depth = len(match["indent"]) // 4 + (1 if match["branch"] else 0)
        del path[depth:]
        bases[match["name"]] = path[-1] if path else "Exception"
        path.append(match["name"])
    return bases


def test_the_drawing_of_the_errors_is_the_tree() -> None:
    classes = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert drawn() == classes


def test_misuse_and_failure_have_their_exit_codes() -> None:
    for name, base in drawn().items():
        kind = getattr(errors, name)
        assert kind.exit_code == (2 if issubclass(kind, errors.Misuse) else 1), (name, base)
