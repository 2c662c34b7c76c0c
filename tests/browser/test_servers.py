"""A fleet of stage 4 in a real browser: a server is added by the button, and each has figures that move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import console
from tests.browser.test_dashboard import CONTRAST, NAMELESS, all_texts, by_id, run, text
from tests.dashboard.conftest import Watched
from tests.support.fleets import make_application, wait_until
from tests.support.open_load import OpenLoad

BOXES = "return [...document.querySelectorAll('.box[data-tier=application]')].map(box => box.dataset.id)"


@pytest.fixture(autouse=True)
def quiet(browser: WebDriver) -> Iterator[None]:
    """No test leaves an error or a warning in the console."""
    console(browser)
    yield
    assert console(browser) == []


@pytest.fixture(scope="module")
def many(programs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two servers behind a balancer. The tests are in an order: servers are added."""
    directory = make_application(tmp_path_factory.mktemp("servers") / "hello")
    file = directory / "outgrow.toml"
    file.write_text(file.read_text().replace('stage = "single-server"', 'stage = "load-balancer"'))
    fleet = Watched(directory, "load-balancer")
    try:
        fleet.start()
        fleet.wait_seen()
        yield fleet
    finally:
        fleet.end()
        assert fleet.pids() == [], "a process was left behind"


@pytest.fixture
def page(browser: WebDriver, many: Watched) -> WebDriver:
    browser.get(many.page)
    wait_until(lambda: len(rows(browser)) >= 2, "the table of servers")
    wait_until(lambda: by_id(browser, "actions").is_displayed(), "the buttons")
    return browser


def rows(browser: WebDriver) -> dict[str, list[str]]:
    """The table of servers: name -> its cells."""
    script = """
    return [...document.querySelectorAll('#servers-table tbody tr')]
      .map(row => [...row.children].map(cell => cell.textContent))
    """
    return {cells[0]: cells for cells in run(browser, script)}


def asked(browser: WebDriver) -> bool:
    return bool(run(browser, "return document.getElementById('confirm').open"))


def test_a_server_is_added_by_the_button_under_load(page: WebDriver, many: Watched) -> None:
    with OpenLoad(many) as load:
        wait_until(lambda: all(cells[3] not in ("0/s", "–") for cells in rows(page).values()), "traffic")
        assert sorted(rows(page)) == run(page, BOXES) == ["app-1", "app-2"]
        first = rows(page)
        wait_until(lambda: rows(page)["app-1"] != first["app-1"], "figures that move")
        page.find_element("css selector", "#actions button:last-child").click()
        assert asked(page) and "from 2 to 3 servers" in text(page, "confirm-text")
        by_id(page, "confirm-yes").click()
        wait_until(lambda: run(page, BOXES) == ["app-1", "app-2", "app-3"], "the node")
        wait_until(lambda: "done after" in text(page, "outcome"), "the outcome")
        wait_until(lambda: rows(page)["app-3"][3] not in ("0/s", "–"), "its requests")
        wait_until(lambda: rows(page)["app-3"][10] not in ("0%", "–"), "its part, as the balancer sees it")
    assert not load.failed
    lanes = "return document.querySelector('.timeline canvas').getAttribute('aria-label')"
    wait_until(lambda: run(page, lanes).startswith("Timeline of 3 servers"), "its lane")


def test_what_was_not_confirmed_is_not_done_and_the_keyboard_is_enough(
    page: WebDriver, many: Watched
) -> None:
    before = (many.directory / "outgrow.toml").read_text()
    more = page.find_element("css selector", "#actions button:last-child")
    run(page, "arguments[0].focus()", more)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert asked(page) and page.switch_to.active_element.text == "Cancel", "Enter alone does nothing"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    wait_until(lambda: not asked(page), "the question gone")
    assert page.switch_to.active_element == more
    page.switch_to.active_element.send_keys(Keys.ENTER)
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    wait_until(lambda: not asked(page), "the question gone again")
    page.find_element("css selector", "#actions .run").click()
    assert asked(page) and "SIGKILL of every process of one server" in text(page, "confirm-text")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    wait_until(lambda: not asked(page), "the question of the drill gone")
    assert (many.directory / "outgrow.toml").read_text() == before
    assert not [event for event in many.events() if event["kind"] == "drill"]
    fewer = page.find_element("css selector", "#actions .icon")
    run(page, "arguments[0].focus()", fewer)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    ActionChains(page).send_keys(Keys.TAB, Keys.ENTER).perform()
    wait_until(lambda: run(page, BOXES) == ["app-1", "app-2"], "a server fewer")
    wait_until(lambda: "- app-3" in text(page, "outcome"), "the outcome")


def test_the_timeline_tells_what_was_when(page: WebDriver) -> None:
    canvas = page.find_element("css selector", ".timeline canvas")
    run(page, "arguments[0].focus()", canvas)
    label = "return arguments[0].getAttribute('aria-label')"
    page.switch_to.active_element.send_keys(Keys.END)
    wait_until(lambda: "all as it should be" in run(page, label, canvas), "the present")
    told = set()
    for _ in range(200):
        page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
        told.add(run(page, label, canvas))
    assert any("scale application.servers=" in each for each in told), told
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    by_id(page, "tab-events").click()
    assert any("gets requests" in row for row in all_texts(page, "#events-list li"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast_and_a_name(page: WebDriver, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.find_element("css selector", "#actions button:last-child").click()
    low = run(page, CONTRAST.replace('"main *, header *"', '"main *, header *, dialog *"'))
    assert low == [] and run(page, NAMELESS) == []
    ActionChains(page).send_keys(Keys.ESCAPE).perform()


def wait_for_boxes(page: WebDriver, count: int) -> None:
    wait_until(lambda: len(run(page, BOXES)) == count, f"{count} servers")


def test_four_servers_fit_a_phone_and_a_desktop(page: WebDriver, many: Watched) -> None:
    """The last of this file."""
    for wanted in (3, 4):
        more = page.find_element("css selector", "#actions button:last-child")
        wait_until(more.is_enabled, "the end of what was asked for before")
        more.click()
        by_id(page, "confirm-yes").click()
        wait_for_boxes(page, wanted)
    for width in (390, 1200):
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": width < 400}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            assert run(page, "return document.documentElement.scrollWidth") <= width
            assert run(page, OVERLAPPING) == []
        finally:
            page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


OVERLAPPING = """
const boxes = [...document.querySelectorAll('.topology .box:not(.part)')];
const at = (box) => box.getBoundingClientRect();
const beside = (a, b) => a.left >= b.right - 1 || b.left >= a.right - 1;
const below = (a, b) => a.top >= b.bottom - 1 || b.top >= a.bottom - 1;
const wrong = [];
boxes.forEach((one, i) => boxes.slice(i + 1).forEach((other) => {
  const [a, b] = [at(one), at(other)];
  if (!beside(a, b) && !below(a, b)) wrong.push([one.dataset.id, other.dataset.id]);
}));
for (const box of boxes) if (box.scrollWidth > box.clientWidth) wrong.push(box.dataset.id);
return wrong;
"""
"""Boxes that lie on each other, or whose figures do not fit."""
