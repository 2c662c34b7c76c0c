"""SQLAlchemy Core statements, compiled once per dialect and run on the bare driver.

SQLAlchemy's own execution costs three times the driver's CPU; its compiler is paid once. What
is kept of it: the SQL text, the order of parameters, and the bind and result processors of
the types, so a DateTime or a JSON column behaves as it does through SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import CompoundSelect, Executable, Select
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.sql.base import _NoArg as NoArgument
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement, TextClause
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault

from outgrow.errors import StatementError
from outgrow.runtime.events import Bound

Processor = Callable[[Any], Any]
Parameters = Mapping[str, Any]

STATEMENTS_MAX = 1024


class Compiled:
    """One statement in one dialect, ready for the driver.

    `arguments(parameters)` gives the driver's positional arguments, and `finished` tells of its end. `slow`
    is set by a driver that has seen the statement block for too long; `at_once` is whether its text is
    fixed and it is not slow.
    """

    __slots__ = (
        "_binds",
        "_compiler",
        "_constants",
        "_count",
        "_defaults",
        "_getter",
        "_names",
        "_slow",
        "arguments",
        "at_once",
        "columns",
        "expanding",
        "finished",
        "is_insert",
        "label",
        "results",
        "returns_rows",
        "source",
        "sql",
    )

    def __init__(
        self, source: Executable, dialect: Dialect, names: Sequence[str], finished: Callable[[str], Bound]
    ) -> None:
        takes_columns = isinstance(source, UpdateBase)
        try:
            compiler = source.compile(dialect=dialect, column_keys=list(names) if takes_columns else None)  # type: ignore[attr-defined]
        except CompileError as error:
            raise StatementError(f"this statement cannot be compiled: {error}") from error
        assert isinstance(compiler, SQLCompiler)
        self.source = source
        self._compiler = compiler
        self.sql = str(compiler)
        self.columns = frozenset(names) if takes_columns else None
        self.label = _label(source)
        self.finished = finished(self.label)
        self.is_insert = bool(compiler.isinsert)
        self.expanding = bool(compiler.post_compile_params or compiler.literal_execute_params)
        self._names: tuple[str, ...] = tuple(compiler.positiontup or ())
        self._getter: Callable[[Parameters], Any] | None = (
            itemgetter(*self._names) if len(self._names) > 1 else None
        )
        self._count = len(set(self._names))
        self._defaults = _defaults(compiler)
        self._constants = {
            name: value
            for name, value in self._defaults.items()
            if name in self._names and not callable(value)
        }
        binds = compiler._bind_processors
        self._binds: tuple[tuple[int, Processor], ...] = tuple(
            (index, binds[name])  # type: ignore[misc]
            for index, name in enumerate(self._names)
            if name in binds and not isinstance(binds[name], tuple)
        )
        self.arguments: Callable[[Parameters], Sequence[Any]] = (
            _single(self._names[0], self._complete)
            if len(self._names) == 1 and not self._binds
            else self._arguments
        )
        self.slow = 0
        self.results = _result_processors(compiler, dialect)
        self.returns_rows = bool(
            compiler._result_columns
            or isinstance(source, TextClause)
            or not (takes_columns or compiler.isddl)  # type: ignore[attr-defined]
        )

    @property
    def slow(self) -> int:
        """How often it still goes to a thread."""
        return self._slow

    @slow.setter
    def slow(self, runs: int) -> None:
        self._slow = runs
        self.at_once = isinstance(self.source, Select | CompoundSelect) and not (runs or self.expanding)

    def _arguments(self, parameters: Parameters) -> Sequence[Any]:
        """The positional arguments. Raises StatementError for a missing or an unknown name."""
        names = self._names
        if self._constants and len(parameters) < self._count:
            parameters = {**self._constants, **parameters}
        if len(parameters) != self._count:
            values: Sequence[Any] = self._complete(parameters)
        else:
            try:
                if self._getter is not None:
                    values = self._getter(parameters)
                elif names:
                    values = (parameters[names[0]],)
                else:
                    return ()
            except KeyError:
                values = self._complete(parameters)
        if self._binds:
            values = list(values)
            for index, processor in self._binds:
                values[index] = processor(values[index])
        return values

    def expand(self, parameters: Parameters) -> tuple[str, Sequence[Any]]:
        """SQL and arguments of a statement whose text depends on them: IN with a list."""
        self._complete(parameters)
        state = self._compiler.construct_expanded_state(dict(parameters))
        values = [state.parameters[name] for name in state.positiontup or ()]
        for index, name in enumerate(state.positiontup or ()):
            processor = state.processors.get(name)
            if processor is not None and not isinstance(processor, tuple):
                values[index] = processor(values[index])
        return state.statement, values

    def _complete(self, parameters: Parameters) -> list[Any]:
        defaults = self._defaults
        values = []
        for name in self._names:
            if name in parameters:
                values.append(parameters[name])
            elif name in defaults:
                value = defaults[name]
                values.append(value() if callable(value) else value)
            else:
                raise StatementError(
                    f"{self.label}: the parameter {name!r} is missing",
                    hint=f"it takes: {', '.join(dict.fromkeys(self._names)) or 'none'}",
                )
        unknown = parameters.keys() - set(self._names)
        if unknown:
            raise StatementError(
                f"{self.label}: unknown parameter {', '.join(sorted(map(repr, unknown)))}",
                hint=f"it takes: {', '.join(dict.fromkeys(self._names)) or 'none'}",
            )
        return values


def _single(name: str, complete: Callable[[Parameters], Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """`arguments` for one name, which is most often the key."""

    def arguments(parameters: Parameters) -> Sequence[Any]:
        if len(parameters) == 1:
            try:
                return (parameters[name],)
            except KeyError:
                pass
        return complete(parameters)

    return arguments


class Compiler:
    """Compiled statements of one dialect, found by the statement's identity.

    Statements built once are compiled once. One built anew for each call is compiled anew (about
    150 us), and only the newest 1,024 are kept, so a program that does so does not leak. `finished` makes
    of a label the event that tells of such a statement's end.
    """

    __slots__ = ("_dialect", "_finished", "known")

    def __init__(self, dialect: Dialect, finished: Callable[[str], Bound]) -> None:
        self._dialect = dialect
        self._finished = finished
        self.known: dict[int, Compiled] = {}

    def compile(self, statement: Executable, parameters: Parameters) -> Compiled:
        """The compiled form. Raises StatementError when it is no Core statement."""
        known = self.known.get(id(statement))
        if known is not None and (known.columns is None or known.columns == parameters.keys()):
            return known
        if not (isinstance(statement, ClauseElement) and isinstance(statement, Executable)):
            raise StatementError(
                f"{type(statement).__name__} is not a SQLAlchemy Core statement",
                hint='use select(), insert(), update(), delete() or text("...")',
            )
        if len(self.known) >= STATEMENTS_MAX:
            del self.known[next(iter(self.known))]
        compiled = Compiled(statement, self._dialect, tuple(parameters), self._finished)
        self.known[id(statement)] = compiled
        return compiled


def _label(statement: Executable) -> str:
    """ "SELECT articles": short and of few values, so that it can label a metric."""
    if isinstance(statement, TextClause):
        words = statement.text.split(None, 1)
        return f"{words[0].upper()} text" if words else "text"
    if isinstance(statement, UpdateBase):
        return f"{statement.__visit_name__.upper()} {getattr(statement.table, 'name', 'expression')}"
    froms = statement.get_final_froms() if hasattr(statement, "get_final_froms") else ()
    while froms and hasattr(froms[0], "left"):
        froms = [froms[0].left]
    return f"SELECT {getattr(froms[0], 'name', 'expression')}" if froms else "SELECT expression"


def _defaults(compiler: SQLCompiler) -> dict[str, Any]:
    """Values of bindparam(value=...) and of column defaults that Python makes."""
    defaults = {
        name: bind.effective_value
        for bind, name in compiler.bind_names.items()
        if not bind.required and bind.effective_value is not NoArgument.NO_ARG
    }
    for column in compiler.insert_prefetch or compiler.update_prefetch or ():
        default = column.default if compiler.isinsert else column.onupdate
        if default is None:
            continue
        if isinstance(default, ScalarElementColumnDefault):
            defaults[column.key] = default.arg
        elif isinstance(default, CallableColumnDefault):
            defaults[column.key] = lambda call=default.arg: call(None)
        else:
            raise StatementError(
                f"the default of {column} needs a query of its own",
                hint="give the value yourself, use server_default, or run it through tx.session",
            )
    return defaults


def _result_processors(compiler: SQLCompiler, dialect: Dialect) -> tuple[tuple[int, Processor], ...]:
    found = []
    for index, column in enumerate(compiler._result_columns):
        processor = column.type._cached_result_processor(dialect, None)
        if processor is not None:
            found.append((index, processor))
    return tuple(found)
