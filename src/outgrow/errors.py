"""Every error Outgrow raises, in one tree.

    OutgrowError                     exit code 1 when it ends a command
    ├── Misuse                       exit code 2: what was typed, written or called is wrong
    │   ├── TopologyError            outgrow.toml, every mistake at once
    │   ├── ScenarioError            a scenario file of `outgrow load`, every mistake at once
    │   ├── NotBuiltYet              a stage of the ladder that this version does not have
    │   ├── StatementError           a statement the fast path cannot run
    │   ├── OutsideUnitOfWork        enqueue() with no open write block
    │   └── UnitOfWorkClosed         a transaction used after its block has ended
    ├── ApplicationBroken            the user's application does not import or dies at start
    ├── FleetError                   the running whole
    │   ├── FleetBusy                another supervisor holds this directory
    │   ├── FleetNotRunning
    │   ├── BeingChanged             somebody else changes this application just now
    │   ├── GrowthFailed         a live move stopped: it was taken back, or it can be resumed
    │   ├── VerificationFailed   the copy of the data differs from the data
    │   ├── NodeFailed               a node died, never became ready, or gave up restarting
    │   ├── PortTaken
    │   └── StateUnreadable          a state file that is damaged
    ├── EngineMissing                a server program that is not installed
    ├── BufferFull                   retryable: write-behind has more to store than it may have
    ├── SessionError                 a session could not be read or kept
    │   ├── SessionsUnavailable      retryable: their store does not answer, so nobody knows what they hold
    │   ├── SessionConflict          retryable: others changed it too often, or it has just got another id
    │   └── SessionTooLarge          it holds more than sessions.size
    └── DatabaseError                what a database node answered
        ├── Unavailable              retryable: no node can serve, or the connection was lost
        │   └── OutcomeUnknown       retryable with an idempotency key: COMMIT was sent, and not answered
        ├── LostWrite                a failover lost something that this session has written or seen
        ├── Conflict                 retryable: serialisation failure, deadlock, lock timeout
        ├── StatementTimeout
        ├── ReadOnlyViolation        a write inside a read block
        ├── SchemaMissing            Outgrow's own tables are not there: run the migrations
        └── IntegrityError
            ├── UniqueViolation
            ├── ForeignKeyViolation
            ├── NotNullViolation
            └── CheckViolation

An error takes facts and builds the sentence: what was wrong, where, and after `hint` the way out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

EXIT_TOLD = 78
"""A program of the fleet ends with it (EX_CONFIG of sysexits.h) after `tell`: trying again cannot help."""


class OutgrowError(Exception):
    """The root. `message` says what was wrong and where; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class Misuse(OutgrowError):
    """What was typed, written or called is wrong; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it stands, what it is, what would be right."""

    path: str
    message: str
    line: int | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        tail = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.path}: {self.message}{tail}"


class TopologyError(Misuse):
    """outgrow.toml is wrong; `problems` lists every mistake, in the order of the file."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(_list(source, self.problems))


class ScenarioError(Misuse):
    """A scenario file of `outgrow load` is wrong; `problems` lists every mistake, in the file's order."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(_list(source, self.problems))


class NotBuiltYet(Misuse):
    """A stage that the ladder has and this version of Outgrow does not."""

    def __init__(self, number: int, name: str, built: Sequence[str]) -> None:
        super().__init__(
            f"stage {number}, {name}, is not built yet in this version",
            hint=f"built so far: {', '.join(built)}",
        )


class StatementError(Misuse):
    """A statement that the fast path cannot run."""


class OutsideUnitOfWork(Misuse):
    """A message was enqueued with no transaction to belong to."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} was called outside a write block",
            hint="call it inside `async with og.db.write():`, or use `await og.queue.send(...)`",
        )


class UnitOfWorkClosed(Misuse):
    """A read or write block was used after it had ended."""

    def __init__(self) -> None:
        super().__init__(
            "this unit of work has already ended",
            hint="keep its use inside the `async with` block that opened it, in one task",
        )


class ApplicationBroken(OutgrowError):
    """The application does not import, or ends while it starts."""


class FleetError(OutgrowError):
    """The running whole, or what is left of it, is not in order."""


class FleetBusy(FleetError):
    """Another supervisor already runs this directory's fleet."""

    def __init__(self, directory: str, pid: int | None) -> None:
        holder = f" (supervisor {pid})" if pid else ""
        super().__init__(
            f"the fleet of {directory} is already running{holder}",
            hint="`outgrow status` shows it, `outgrow down` stops it",
        )


class BeingChanged(FleetError):
    """Somebody else changes this application just now; the message says who, and why."""


class GrowthFailed(FleetError):
    """A growing application could not take a step; the message says where it stands now."""


class VerificationFailed(FleetError):
    """A copy of the data is not what it should be."""


class FleetNotRunning(FleetError):
    """A command needs a running fleet, and there is none in this directory."""

    def __init__(self, directory: str) -> None:
        super().__init__(f"no fleet is running in {directory}", hint="start it with `outgrow up`")


class NodeFailed(FleetError):
    """A node died, never became ready, or was restarted too often."""

    def __init__(self, node: str, reason: str, *, log_tail: Sequence[str] = ()) -> None:
        self.node = node
        self.reason = reason
        self.log_tail = tuple(log_tail)
        tail = "".join(f"\n    {line}" for line in self.log_tail)
        super().__init__(f"node {node} {reason}{tail}", hint=f"its whole log: `outgrow logs {node}`")


class PortTaken(FleetError):
    """The address that a node is to listen on belongs to another program."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"{host}:{port} is taken by another program",
            hint="choose another with `--port N`, or stop that program",
        )


class StateUnreadable(FleetError):
    """A file under .outgrow/ is damaged."""


class EngineMissing(OutgrowError):
    """A server program that the topology needs is not installed."""

    def __init__(self, program: str, *, install: str) -> None:
        super().__init__(f"{program} is not installed", hint=f"install it: {install}")


class BufferFull(OutgrowError):
    """What is put is not stored as fast as it comes. Nothing of this put was kept."""

    retryable = True

    def __init__(self, strategy: str, entries: int, waited_s: float) -> None:
        super().__init__(
            f"write-behind {strategy!r} has {entries} puts to store: no room for one more in {waited_s:g} s",
            hint="its store is slow, or fails: see the log; or give it a larger entries_max or bytes_max",
        )


class SessionError(OutgrowError):
    """A session could not be read or kept."""

    retryable = False


class SessionsUnavailable(SessionError):
    """The store of the sessions does not answer. A change may or may not have been kept."""

    retryable = True

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the sessions cannot be reached: {reason}", hint="their store is down or overloaded"
        )


class SessionConflict(SessionError):
    """Nothing of this request's changes was kept."""

    retryable = True


class SessionTooLarge(SessionError):
    """A session holds more than sessions.size; what was there before is kept."""

    def __init__(self, size: int, size_max: int, key: str) -> None:
        self.size = size
        super().__init__(
            f"a session of {size} bytes is larger than {size_max}; {key!r} is the largest part of it",
            hint="keep large things in the database and their id in the session, or raise sessions.size",
        )


class DatabaseError(OutgrowError):
    """What a database node answered. `node` names it; the driver's error is the cause."""

    retryable = False

    def __init__(self, message: str, *, node: str = "", hint: str = "") -> None:
        self.node = node
        super().__init__(f"{node}: {message}" if node else message, hint=hint)


class Unavailable(DatabaseError):
    """No node could serve in time, or the connection was lost. A commit may or may not have happened."""

    retryable = True


class OutcomeUnknown(Unavailable):
    """COMMIT was sent and not answered: the transaction may or may not have been committed.

    To repeat it can do the same twice. `og.db.transact(..., idempotency_key=...)` repeats it safely.
    """


class LostWrite(DatabaseError):
    """A failover to a replica that was not as far lost what this session has written, or seen of others.

    It is told once: the session's bookmark demands no more than what is there, so the next request goes on
    with the data as it is. By default its answer is 409 with a problem document.
    """

    def __init__(self, shard: str, position: str) -> None:
        self.shard = shard
        super().__init__(
            f"after failover of shard {shard} not all is there that this session has seen, up to {position}",
            hint="tell the user to look at what is there and to repeat what is missing; then go on",
        )


class Conflict(DatabaseError):
    """The transaction was rolled back because of a concurrent one; repeating it is safe."""

    retryable = True


class StatementTimeout(DatabaseError):
    """The statement ran longer than database.statement_timeout and was cancelled."""


class ReadOnlyViolation(DatabaseError):
    """A statement inside a read block tried to write; the server refused it."""


class SchemaMissing(DatabaseError):
    """A table that Outgrow itself needs does not exist yet."""


class IntegrityError(DatabaseError):
    """A constraint refused the row. `columns` names the columns where the database tells them."""

    def __init__(
        self, message: str, *, node: str = "", constraint: str = "", columns: tuple[str, ...] = ()
    ) -> None:
        self.constraint = constraint
        self.columns = columns
        super().__init__(message, node=node)


class UniqueViolation(IntegrityError):
    """Another row has this key."""


class ForeignKeyViolation(IntegrityError):
    """A row that is referred to does not exist, or is still referred to."""


class NotNullViolation(IntegrityError):
    """A column that must have a value has none."""


class CheckViolation(IntegrityError):
    """A CHECK constraint refused the row."""


def _list(source: str, problems: Sequence[Problem]) -> str:
    count = len(problems)
    lines = "\n".join(f"  {problem}" for problem in problems)
    return f"{source}: {count} mistake{'s' if count != 1 else ''}\n{lines}"


def tell(error: OutgrowError) -> str:
    """The error in one line of JSON, for the process that waits for this one."""
    return json.dumps({"kind": type(error).__name__, "fatal": error.message, "hint": error.hint})


def told(line: str) -> OutgrowError | None:
    """The error that such a line tells, or None when it is no such line."""
    try:
        said = json.loads(line)
        kind, message, hint = str(said["kind"]), str(said["fatal"]), str(said.get("hint", ""))
    except (ValueError, TypeError, KeyError):
        return None
    found = globals().get(kind)
    if not (isinstance(found, type) and issubclass(found, OutgrowError)):
        found = OutgrowError
    error = found.__new__(found)
    OutgrowError.__init__(error, message, hint=hint)
    return error
