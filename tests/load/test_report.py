"""The report in its three forms."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import msgspec
import pytest

from outgrow.load import words
from outgrow.load.html import html
from outgrow.load.parse import parse
from outgrow.load.plots import Line, linear, lines, logarithmic, nines
from outgrow.load.recorder import Example, Recorder
from outgrow.load.report import Report, Run, report
from outgrow.load.text import text
from outgrow.load.traffic import Violation

SCENARIO = parse("""
name = "Shop <b> & more"
rate = 10
duration = 4
warmup = 1
[request.home]
weight = 1
path = "/"
""")


def made(*, requests: int = 40, wrong: bool = True, late_s: float = 0.0001, cpu: float = 0.2) -> Report:
    recorder = Recorder(SCENARIO.warmup)
    for number in range(requests):
        start = number * 0.1
        recorder.noticed(start, start + late_s)
        recorder.was_sent(start, 0.0)
        recorder.right("home", start, start + late_s, start + late_s + 0.002 + number * 0.001)
    if wrong:
        for kind in ("reset", "timeout", "status 503", "status 500", "closed", "refused", "protocol"):
            recorder.wrong(Example(kind, "home", 3.5, "ab" * 16, "GET /", "<script>alert(1)</script>"), 3.0)
        violation = Violation("title of <x>", "'new'", "'old'")
        recorder.wrong(Example("violation", "home", 3.6, "cd" * 16, "GET /t", "{}", (violation,)), 3.0)
        recorder.waiting(3.0, 7)
        recorder.not_sent(3.9, 3.9, "full")
    run = Run("http://127.0.0.1:1", "ab", 1_700_000_000.0, 5.0, False, 10, 3, cpu, 12)
    return report(SCENARIO, recorder, run)


class Page(HTMLParser):
    """What a browser would load, run and show."""

    VOID = ("meta", "line", "rect", "polyline")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.shown = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID or tag == "rect":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_the_page_loads_nothing_runs_nothing_and_escapes_everything() -> None:
    page = html(made())
    found = Page(page)
    assert "script" not in found.tags
    assert found.addresses == []
    assert "url(" not in page
    assert "@import" not in page
    assert "Shop <b> & more" in found.shown
    assert "<script>alert(1)</script>" in found.shown
    assert "title of <x>" in found.shown


def test_the_page_has_every_plot_and_is_for_phones_and_the_dark() -> None:
    page = html(made())
    assert page.count("<svg") == 6
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page
    assert "others" in Page(page).shown  # kinds of errors beyond five share a colour


def test_a_run_without_errors_says_so() -> None:
    page = Page(html(made(wrong=False)))
    assert page.tags.count("svg") == 4
    assert "None." in page.shown
    assert "Violations" not in page.shown


def test_a_run_of_nothing_has_a_page_too() -> None:
    nothing = made(requests=0, wrong=False)
    assert "No request was answered" in Page(html(nothing)).shown
    assert "0 answered" in text(nothing)


def test_the_text_has_the_figures_and_what_went_wrong() -> None:
    found = text(made())
    for part in (
        "Shop <b> & more at http://127.0.0.1:1",
        "4 s at 10.0/s, after 1 s of warm-up",
        "1 violation in 12 comparisons",
        "own lateness",
        "status 503",
        "GET / at 3.500 s, trace abab",
        "title of <x>: 'new' expected, 'old' found",
    ):
        assert part in found


def test_the_json_is_the_report() -> None:
    document = made()
    back = msgspec.json.decode(msgspec.json.encode(document), type=Report)
    assert back == document
    assert back.latency.count == sum(count for _, count in back.latency.steps) == 30
    assert back.latency.percentiles["50"] == pytest.approx(26.1, rel=0.05)
    assert (back.intended, back.answered, back.failed, back.not_sent) == (30, 30, 8, 1)
    assert [row.second for row in back.series] == [0, 1, 2, 3, 4][: len(back.series)]
    assert [row.warmup for row in back.series][:2] == [True, False]
    assert back.started == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize(
    ("report_", "warned"),
    [
        (made(wrong=False), ""),
        (made(wrong=False, late_s=0.05), "The generator itself was late"),
        (made(wrong=False, cpu=0.95), "used 95% of a core"),
    ],
)
def test_warnings_before_the_figures_are_believed(report_: Report, warned: str) -> None:
    assert len(report_.warnings) == bool(warned)
    assert all(warned in warning and warning in text(report_) for warning in report_.warnings)


def test_the_manual_names_every_key_of_the_json() -> None:
    from tests.support.source import ROOT

    manual = (ROOT / "docs" / "load.md").read_text()
    assert [name for name in Report.__struct_fields__ if f"`{name}`" not in manual] == []


def test_axes() -> None:
    assert [label for _, label in linear(0, 47, str).ticks] == ["0.0", "10.0", "20.0", "30.0", "40.0"]
    axis = logarithmic(0.3, 80, words.duration_mark)
    assert [label for _, label in axis.ticks] == ["0.1 ms", "1 ms", "10 ms", "100 ms"]
    assert axis.place(0.1) == 0.0
    assert axis.place(100) == 1.0
    assert axis.place(0) == 0.0
    assert [label for _, label in nines(0.999).ticks] == ["0", "p50", "p90", "p99", "p99.9"]
    assert nines(0.99).place(0.9) == pytest.approx(0.5)
    assert linear(0, 0, str).place(0) == 0


def test_a_line_is_cut_where_there_is_no_value_and_a_value_alone_is_a_dot() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, math.nan)]
    plot = lines("t", linear(0, 4, str), linear(0, 2, str), [Line("a", "first", points)])
    pieces = re.findall('points="([^"]*)"', plot)
    assert [len(piece.split()) for piece in pieces] == [2, 2]
    assert len(set(pieces[1].split())) == 1


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0, "0 ms"),
        (0.0432, "0.043 ms"),
        (0.432, "0.43 ms"),
        (43.21, "43.2 ms"),
        (432.1, "432 ms"),
        (1234, "1.23 s"),
        (75_000, "75 s"),
    ],
)
def test_durations_in_words(ms: float, said: str) -> None:
    assert words.duration(ms) == said


def test_shares_are_never_rounded_to_nothing() -> None:
    assert words.share(1, 100_000) == "0.001%"
    assert words.share(0, 10) == "0.0%"
    assert words.share(1, 3) == "33.3%"
