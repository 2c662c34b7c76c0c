"""Headless Chromium, driven as a person would. Without it the tests are skipped at a desk, and fail in CI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.dashboard.conftest import Watched
from tests.support.fleets import make_application
from tests.support.lacking import lacking

PROGRAMS = ("chromium", "chromedriver")


@pytest.fixture(scope="session")
def programs() -> tuple[str, str]:
    """Debian's browser and its driver."""
    found = [shutil.which(name) for name in PROGRAMS]
    missing = [name for name, path in zip(PROGRAMS, found, strict=True) if path is None]
    if missing:
        lacking(f"missing: {', '.join(missing)} (Debian packages chromium and chromium-driver)")
    browser, driver = found
    assert browser is not None and driver is not None
    return browser, driver


@pytest.fixture(scope="module")
def browser(programs: tuple[str, str]) -> Iterator[WebDriver]:
    """A window as large as a desktop's. Its console is kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1400,1000",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        yield window
    finally:
        window.quit()


@pytest.fixture(scope="module")
def fleet(programs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A fleet of these tests, which kill some of it."""
    fleet = Watched(make_application(tmp_path_factory.mktemp("browser") / "hello"))
    try:
        fleet.start()
        fleet.wait_seen()
        yield fleet
    finally:
        fleet.end()
        assert fleet.pids() == [], "a process was left behind"


def console(browser: WebDriver) -> list[Any]:
    """What the page has complained of since the last call."""
    return [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]  # type: ignore[no-untyped-call]
