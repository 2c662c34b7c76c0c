"""Logs: one JSON object a line, with the trace that it belongs to.

    request_finished -> AccessLog --+
                                    +--> Lines (held for at most 100 ms) --> standard error
    logging.getLogger(...) -> Json -+

A line can neither be forged nor broken by what a caller sends: everything is JSON, control characters
and other unprintable ones are escaped, lengths are bounded. Query strings are not logged: they hold
secrets too often.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import select
import stat
import threading
import time
import traceback
from collections import deque
from functools import cache, lru_cache
from typing import Any

import msgspec

from outgrow.runtime import scope as request
from outgrow.runtime.scope import Scope

FLUSH_EVERY_S = 0.1
HELD_LINES_MAX = 512
HELD_BYTES_MAX = 1024 * 1024
PIPE_WRITE_BYTES = 4096
"""PIPE_BUF on Linux: a write up to this size is atomic, and does not block when poll says writable."""

PATH_LENGTH_MAX = 512
MESSAGE_LENGTH_MAX = 8192
EXCEPTION_LENGTH_MAX = 16384


class Lines:
    """Holds lines and writes them in batches; never blocks the event loop on a slow reader.

    A pipe whose reader does not keep up fills at most a megabyte here. Then the oldest lines go, and
    a line says how many went.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held: deque[bytes] = deque()  # its append is atomic: `add` takes no lock
        self._left: list[bytes] = []
        self._left_bytes = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed = False
        self._lock = threading.Lock()
        mode = os.fstat(descriptor).st_mode
        self._pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def add(self, line: bytes) -> None:
        """Hold one line, its newline included. From any thread."""
        held = self._held
        held.append(line)
        if not self._armed:
            self._arm()
        elif len(held) >= HELD_LINES_MAX:
            self.flush()

    def flush(self, wait_s: float = 0.0) -> None:
        """Write what is held, waiting at most so long for a reader that is behind."""
        self._armed = False
        with self._lock:
            while self._held:
                line = self._held.popleft()
                self._left.append(line)
                self._left_bytes += len(line)
            try:
                self._write(wait_s)
            except OSError:
                self._left.clear()  # the reader is gone: there is nobody to tell
                self._left_bytes = 0
            self._bound()
        if self._left:
            self._arm()

    def close(self) -> None:
        """Write everything, for at most a second."""
        self.flush(1.0)
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if not self._left:
                self.flush()
            return
        self._armed = True
        self._timer = loop.call_later(FLUSH_EVERY_S, self.flush)

    def _write(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        done = 0
        try:
            while done < len(self._left):
                chunk, count = self._chunk(done)
                if self._pipe and not self._writable(deadline):
                    return
                _write_all(self._descriptor, chunk)
                done += count
                self._left_bytes -= len(chunk)
        finally:
            del self._left[:done]

    def _chunk(self, start: int) -> tuple[bytes, int]:
        """Whole lines that one write can take, at least one."""
        if not self._pipe:
            return b"".join(self._left[start:]), len(self._left) - start
        size, end = len(self._left[start]), start + 1
        while end < len(self._left) and size + len(self._left[end]) <= PIPE_WRITE_BYTES:
            size += len(self._left[end])
            end += 1
        return b"".join(self._left[start:end]), end - start

    def _writable(self, deadline: float) -> bool:
        remaining_ms = max(0, int((deadline - time.monotonic()) * 1000))
        return bool(self._poll.poll(remaining_ms))

    def _bound(self) -> None:
        too_old = 0
        while self._left_bytes > HELD_BYTES_MAX:
            self._left_bytes -= len(self._left[too_old])
            too_old += 1
        del self._left[:too_old]
        self._dropped += too_old
        if self._dropped and not self._left:
            dropped, self._dropped = self._dropped, 0
            note = {"ts": timestamp(time.time()), "level": "warning", "logger": "outgrow.logs"}
            note["message"] = f"{dropped} log lines dropped: their reader did not keep up"
            line = msgspec.json.encode(note) + b"\n"
            self._left.append(line)
            self._left_bytes += len(line)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@cache
def stderr_lines() -> Lines:
    """The process's one writer to standard error, flushed when the process ends."""
    lines = Lines(2)
    atexit.register(lines.close)
    return lines


class Access(msgspec.Struct, omit_defaults=True):
    """One line of the access log. `ms` is milliseconds until the last byte."""

    ts: str
    level: str
    logger: str
    message: str
    trace_id: str
    span_id: str
    method: str
    path: str
    route: str
    status: int
    ms: float
    error: str | None = None


class AccessLog:
    """A sink for request_finished: one line a request."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._add = lines.add
        self._encode = msgspec.json.Encoder().encode

    def request_finished(
        self, scope: Scope, method: str, route: str, status: int, seconds: float, path: str, error: str | None
    ) -> None:
        """One line for the request."""
        if len(path) > PATH_LENGTH_MAX or not path.isprintable():
            path = printable(path, PATH_LENGTH_MAX)
        record = Access(
            timestamp(time.time()),
            "info" if status < 500 else "error",
            "outgrow.access",
            "request",
            scope.trace_id,
            scope.span_id,
            method,
            path,
            route,
            status,
            round(seconds * 1000, 3),
            error,
        )
        self._add(self._encode(record) + b"\n")

    def flush(self) -> None:
        """Write the lines that are still held, for at most a second."""
        self._lines.flush(1.0)


class Json(logging.Handler):
    """The standard library's log records as JSON lines. An error is written at once."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.add(encode_record(record))
            if record.levelno >= logging.ERROR:
                self._lines.flush(0.1)
        except Exception:
            self.handleError(record)


def install(level: int | str = logging.INFO) -> None:
    """Make JSON on standard error the log of this whole process. For programs, not for libraries."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Json):
            root.removeHandler(handler)
    root.addHandler(Json(stderr_lines()))
    root.setLevel(level)
    logging.captureWarnings(True)


_OWN_FIELDS = frozenset(
    {
        *logging.LogRecord("", 0, "", 0, "", None, None).__dict__,
        *("message", "asctime", "taskName"),  # set by formatters and later versions of Python
        "color_message",  # uvicorn's
    }
)


def encode_record(record: logging.LogRecord) -> bytes:
    """One record as a JSON line. What was given as `extra` becomes fields of the object."""
    fields: dict[str, Any] = {
        "ts": timestamp(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": escaped(record.getMessage(), MESSAGE_LENGTH_MAX),
    }
    error = record.exc_info[1] if record.exc_info else None
    trace_id, span_id = _trace(error)
    if trace_id:
        fields["trace_id"], fields["span_id"] = trace_id, span_id
    for name, value in record.__dict__.items():
        if name not in _OWN_FIELDS and name not in fields:
            plain = isinstance(value, int | float)
            fields[name] = value if plain else escaped(str(value), MESSAGE_LENGTH_MAX)
    if error is not None:
        fields["exception"] = escaped("".join(traceback.format_exception(error)), EXCEPTION_LENGTH_MAX)
    if record.stack_info:
        fields["stack"] = escaped(record.stack_info, EXCEPTION_LENGTH_MAX)
    return msgspec.json.encode(fields) + b"\n"


def _trace(error: BaseException | None) -> tuple[str, str]:
    """The running request's trace, else the one that the middleware has noted on the exception."""
    scope = request.current.get()
    if scope is not None:
        return scope.trace_id, scope.span_id
    noted: tuple[str, str] | None = getattr(error, "__outgrow_trace__", None)
    return noted or ("", "")


def printable(text: str, length_max: int) -> str:
    """The text within one line: what is not printable becomes an escape, the end beyond the limit goes."""
    cut = text[:length_max]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)


def escaped(text: str, length_max: int) -> str:
    """Like `printable`, but line breaks and tabs stay: JSON escapes them, and readers show them."""
    cut = text if len(text) <= length_max else f"{text[:length_max]}... ({len(text)} characters)"
    if cut.isprintable():
        return cut
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in cut)


def timestamp(moment: float) -> str:
    """RFC 3339 in UTC to the millisecond. The part down to the second is made once a second."""
    second = int(moment)
    return f"{_to_the_second(second)}.{int((moment - second) * 1000):03d}Z"


@lru_cache(maxsize=2)
def _to_the_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
