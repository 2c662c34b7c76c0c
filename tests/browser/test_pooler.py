"""A pooler that comes with more servers, in a real browser: its place is between them and the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.conftest import console
from tests.browser.test_dashboard import all_texts, run
from tests.dashboard.conftest import Watched
from tests.support.fleets import make_application, wait_until
from tests.support.growing import Command
from tests.support.open_load import OpenLoad
from tests.support.pgbouncer import program

PLACES = """
return Object.fromEntries([...document.querySelectorAll('.topology .tier')].map(tier => {
  const box = tier.getBoundingClientRect();
  return [tier.dataset.tier, [box.left, box.right, box.top, box.bottom]];
}))
"""
SETTINGS = '\n[database]\npool = 40\n\n[sessions]\nengine = "redis"\n'


@pytest.fixture
def fleet(programs: tuple[str, str], tmp_path: Path) -> Iterator[Watched]:
    """Two servers with 80 connections, and sessions in Redis beside."""
    program()
    directory = make_application(tmp_path / "hello")
    file = directory / "outgrow.toml"
    file.write_text(file.read_text().replace("single-server", "load-balancer") + SETTINGS)
    made = Watched(directory, "load-balancer")
    try:
        made.start()
        made.wait_seen()
        yield made
    finally:
        made.end()
        assert made.pids() == [], "a process was left behind"


def places(browser: WebDriver) -> dict[str, Any]:
    """Each tier: left, right, top, bottom."""
    found: dict[str, Any] = run(browser, PLACES)
    return found


def test_it_stands_between_the_servers_and_the_database(browser: WebDriver, fleet: Watched) -> None:
    browser.set_window_size(1400, 1000)
    browser.get(fleet.page)
    wait_until(lambda: "database" in places(browser), "the drawing")
    assert "pooler" not in places(browser)
    with OpenLoad(fleet) as load:
        Command(fleet, "scale", "app=3").wait_done()
        wait_until(lambda: "pooler" in places(browser), "the pooler")
        assert all_texts(browser, ".box[data-id=pgbouncer] .kind") == ["PgBouncer"]
        load.wait_for_more(200)
        drawn = places(browser)
        assert drawn["application"][1] < drawn["pooler"][0] < drawn["pooler"][1] < drawn["database"][0]
        assert drawn["sessions"][0] == drawn["pooler"][0], "one column: the application asks both"
        width = run(browser, "return document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, "nothing is cut off"
        browser.set_window_size(480, 1400)
        wait_until(
            lambda: places(browser)["pooler"][3] < places(browser)["database"][2], "one below the other"
        )
        browser.set_window_size(1400, 1000)
    assert not load.failed
    assert console(browser) == []
