"""What is kept of a run, and that it stays small."""

from __future__ import annotations

from outgrow.load.recorder import (
    EXAMPLE_KINDS_MAX,
    EXAMPLES_MAX,
    ROWS_MAX,
    VIOLATIONS_SHOWN,
    Example,
    Recorder,
)
from outgrow.load.traffic import Violation


def example(kind: str, second: float = 1.0, violations: int = 0) -> Example:
    wrong = tuple(Violation(f"fact {number}", "a", "b") for number in range(violations))
    return Example(kind, "name", second, "trace", "GET /", "x" * 10_000, wrong)


def test_the_warm_up_is_in_the_rows_and_nowhere_else() -> None:
    recorder = Recorder(warmup_s=2.0)
    for intended in (0.5, 1.9, 2.0, 2.5):
        recorder.noticed(intended, intended + 0.001)
        recorder.was_sent(intended, 0.0)
        recorder.right("list", intended, intended + 0.001, intended + 0.011)
    recorder.wrong(example("reset"), intended=0.9)
    assert (recorder.intended, recorder.answered, recorder.latency.count) == (2, 2, 2)
    assert recorder.names["list"].finished == 2
    assert recorder.errors.total() == 0
    assert [(row.intended, row.answered, row.errors.total()) for row in recorder.rows] == [
        (1, 1, 0),
        (1, 1, 1),
        (2, 2, 0),
    ]


def test_latency_counts_from_the_intended_start_and_service_from_sending() -> None:
    recorder = Recorder(0.0)
    recorder.noticed(1.0, 1.002)
    recorder.was_sent(1.0, 0.5)
    recorder.right("x", intended=1.0, sent=1.502, now=1.602)
    assert recorder.latency.maximum == 602_000
    assert recorder.service.maximum == 100_000
    assert recorder.lateness.maximum == 2_000
    assert recorder.waited.maximum == 500_000


def test_violations_count_in_the_warm_up_too_and_the_first_are_kept() -> None:
    recorder = Recorder(warmup_s=10.0)
    for _ in range(VIOLATIONS_SHOWN + 5):
        recorder.wrong(example("violation", violations=2), intended=1.0)
    assert recorder.violations == 2 * (VIOLATIONS_SHOWN + 5)
    assert len(recorder.violating) == VIOLATIONS_SHOWN
    assert len(recorder.violating[0].detail) == 2_000


def test_examples_are_few_and_short_of_each_kind() -> None:
    recorder = Recorder(0.0)
    for status in range(100, 200):
        for _ in range(EXAMPLES_MAX + 2):
            recorder.wrong(example(f"status {status}"), intended=1.0)
    assert len(recorder.examples) <= EXAMPLES_MAX * (EXAMPLE_KINDS_MAX + 1)
    assert all(len(each.detail) <= 2_000 for each in recorder.examples)
    assert recorder.errors["status 150"] == EXAMPLES_MAX + 2


def test_a_day_takes_no_more_rows_than_some_minutes_and_loses_nothing() -> None:
    recorder = Recorder(0.0)
    for second in range(0, 86_400, 3):
        recorder.noticed(second, second + 0.001)
        recorder.right("x", second, second + 0.001, second + 0.002)
    assert len(recorder.rows) <= ROWS_MAX
    assert recorder.row_s == 128.0
    assert (
        sum(row.intended for row in recorder.rows)
        == sum(row.latency.count for row in recorder.rows)
        == 28_800
    )


def test_what_was_never_sent_is_an_error_of_no_request() -> None:
    recorder = Recorder(0.0)
    recorder.not_sent(1.0, 1.0, "full")
    assert recorder.errors == {"not sent": 1}
    assert recorder.names == {}
    assert recorder.failed.count == 0
