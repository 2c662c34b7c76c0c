"""Logs: one JSON object a line, whatever is in it; batched, and never in the way."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.runtime import scope as request
from outgrow.runtime.scope import Scope
from outgrow.runtime.telemetry import logs
from outgrow.runtime.telemetry.logs import AccessLog, Json, Lines, encode_record, timestamp


class Pipe:
    """Standard error as the supervisor gives it, with its reader's end."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.lines = Lines(self.writer)

    def read(self) -> bytes:
        try:
            return os.read(self.reader, 16 * 1024 * 1024)
        except BlockingIOError:
            return b""

    def records(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.read().splitlines()]

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            try:
                os.close(descriptor)
            except OSError:
                continue


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe()
    yield opened
    opened.close()


def access(log: AccessLog, *, path: str = "/", status: int = 200, error: str | None = None) -> None:
    log.request_finished(
        Scope(trace_id="t" * 32, span_id="s" * 16), "GET", "/{x}", status, 0.0123456, path, error
    )


def record(message: str, *arguments: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("app", level, __file__, 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_a_line_of_the_access_log(pipe: Pipe) -> None:
    log = AccessLog(pipe.lines)
    access(log, path="/articles/ü?")
    [line] = pipe.records()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "outgrow.access",
        "message": "request",
        "trace_id": "t" * 32,
        "span_id": "s" * 16,
        "method": "GET",
        "path": "/articles/ü?",
        "route": "/{x}",
        "status": 200,
        "ms": 12.346,
    }
    access(log, status=500, error="ValueError")
    [line] = pipe.records()
    assert (line["level"], line["error"]) == ("error", "ValueError")


@given(st.text(alphabet=st.characters(categories=None, exclude_categories=())))
def test_no_path_breaks_or_forges_a_line(path: str) -> None:
    pipe = Pipe()
    access(AccessLog(pipe.lines), path=path)
    text = pipe.read().decode()
    pipe.close()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    assert msgspec.json.decode(text)["message"] == "request"


def test_terminal_escapes_and_line_breaks_are_made_visible(pipe: Pipe) -> None:
    log = AccessLog(pipe.lines)
    for path, shown in {
        '/x\n{"level":"error"}': '/x\\n{"level":"error"}',
        "/\x1b[2J\x9b31m": "/\\x1b[2J\\x9b31m",
        "/\u202egnp.exe\u2028": "/\\u202egnp.exe\\u2028",
        "/\udcff": "/\\udcff",
    }.items():
        access(log, path=path)
        assert [line["path"] for line in pipe.records()] == [shown]
    access(log, path="/" + "x" * 100_000)
    assert len(pipe.read()) < 1000


def test_lines_are_held_and_written_together(pipe: Pipe) -> None:
    async def serve() -> None:
        log = AccessLog(pipe.lines)
        for _ in range(10):
            access(log)
        assert pipe.read() == b""
        await asyncio.sleep(logs.FLUSH_EVERY_S + 0.05)
        assert len(pipe.records()) == 10
        access(log)
        log.flush()
        assert len(pipe.records()) == 1
        for _ in range(logs.HELD_LINES_MAX + 1):
            access(log)
        assert len(pipe.records()) >= 250  # as much as the pipe takes: it is not read meanwhile

    asyncio.run(serve())


def test_a_second_event_loop_is_served_like_the_first(pipe: Pipe) -> None:
    async def one() -> None:
        access(AccessLog(pipe.lines))
        await asyncio.sleep(0)

    asyncio.run(one())  # ends before the timer fires
    asyncio.run(one())
    pipe.lines.close()
    assert len(pipe.records()) == 2


def test_a_reader_that_does_not_read_holds_nobody_up(pipe: Pipe) -> None:
    log = AccessLog(pipe.lines)
    count = 20_000
    started = time.monotonic()

    async def flood() -> None:
        for _ in range(count):
            access(log)

    asyncio.run(flood())
    assert time.monotonic() - started < 5
    written: list[dict[str, Any]] = []
    for _ in range(1000):
        pipe.lines.flush()
        read = pipe.records()
        if not read and written:
            break
        written += read
    notes = [line["message"] for line in written if line["logger"] == "outgrow.logs"]
    assert len(notes) == 1
    assert sum(line["logger"] == "outgrow.access" for line in written) + int(notes[0].split()[0]) == count


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    os.close(pipe.reader)
    for _ in range(3):
        access(AccessLog(pipe.lines))
    pipe.lines.close()


def test_threads_lose_nothing(pipe: Pipe) -> None:
    def write(name: int) -> None:
        for _ in range(200):
            pipe.lines.add(b"%d\n" % name)
            time.sleep(0)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipe.lines.close()
    lines = pipe.read().split()
    assert {line: lines.count(line) for line in set(lines)} == {b"%d" % number: 200 for number in range(4)}


# --- The standard library's records ----------------------------------------------------------------


def test_a_record_has_its_fields_and_those_given_as_extra() -> None:
    line = msgspec.json.decode(
        encode_record(record("%s of %d", "one", 2, level=logging.WARNING, user="ü", n=3))
    )
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "warning", "logger": "app", "message": "one of 2", "user": "ü", "n": 3}


def test_an_extra_cannot_take_the_place_of_a_field() -> None:
    line = msgspec.json.decode(encode_record(record("true", level=logging.INFO, ts="forged")))
    assert line["ts"] != "forged"
    assert msgspec.json.decode(encode_record(record("x", thing=object())))["thing"].startswith("<object")


def test_a_record_carries_the_running_requests_trace() -> None:
    token = request.current.set(Scope(trace_id="a" * 32, span_id="b" * 16))
    try:
        line = msgspec.json.decode(encode_record(record("x")))
    finally:
        request.current.reset(token)
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)


def test_an_exception_brings_its_traceback_and_its_trace() -> None:
    try:
        raise ValueError("broken\n\x1b[2J")
    except ValueError as error:
        error.__outgrow_trace__ = ("a" * 32, "b" * 16)  # type: ignore[attr-defined]
        made = record("failed", level=logging.ERROR)
        made.exc_info = (ValueError, error, error.__traceback__)
    raw = encode_record(made)
    line = msgspec.json.decode(raw)
    assert raw.count(b"\n") == 1
    assert line["trace_id"] == "a" * 32
    assert "test_telemetry_logs.py" in line["exception"]
    assert "ValueError: broken\n\\x1b[2J" in line["exception"]


@given(st.text(alphabet=st.characters(categories=None, exclude_categories=())))
def test_no_message_breaks_a_line(message: str) -> None:
    raw = encode_record(record("%s", message, extra_field=message))
    assert raw.count(b"\n") == 1
    assert raw.isascii() or raw.decode()[:-1].isprintable()


def test_a_long_message_is_cut() -> None:
    assert len(encode_record(record("x" * 1_000_000))) < 10_000


def test_errors_are_written_at_once(pipe: Pipe) -> None:
    async def serve() -> None:
        handler = Json(pipe.lines)
        handler.handle(record("held"))
        assert pipe.read() == b""
        handler.handle(record("failed", level=logging.ERROR))
        assert [line["message"] for line in pipe.records()] == ["held", "failed"]

    asyncio.run(serve())


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1700000000.9996, "2023-11-14T22:13:20.999Z"),
        (1700000001.001, "2023-11-14T22:13:21.000Z"),
    ],
)
def test_timestamps(moment: float, text: str) -> None:
    assert timestamp(moment)[:22] == text[:22]
