"""A database with a replica in a real browser: who does what, where reads go, a switchover in its phases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.conftest import console
from tests.browser.test_dashboard import CONTRAST, NAMELESS, all_texts, run, text
from tests.browser.test_servers import OVERLAPPING
from tests.dashboard.conftest import Watched
from tests.support.fleets import make_application, wait_until
from tests.support.growing import Command
from tests.support.open_load import OpenLoad
from tests.support.patroni import program

pytestmark = pytest.mark.timeout(240)
CELLS = """
return [...document.querySelectorAll('#replicas-table tbody tr')]
  .map(row => [...row.children].map(cell => cell.textContent))
"""
RATES_ON_EACH_OTHER = """
const rates = [...document.querySelectorAll('.topology .link .rate')].filter(each => each.textContent);
const wrong = [];
rates.forEach((one, i) => rates.slice(i + 1).forEach((other) => {
  const [a, b] = [one.getBoundingClientRect(), other.getBoundingClientRect()];
  const apart = a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom;
  if (!apart) wrong.push([one.textContent, other.textContent]);
}));
return [rates.length, wrong];
"""


@pytest.fixture(scope="module")
def fleet(programs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two servers, a primary and a replica, with backups."""
    program()
    folder = tmp_path_factory.mktemp("replicas")
    directory = make_application(folder / "hello")
    file = directory / "outgrow.toml"
    more = f'\n[database]\nreplicas = 1\n[backup]\ndirectory = "{folder / "backups"}"\n'
    file.write_text(file.read_text().replace('stage = "single-server"', 'stage = "replication"') + more)
    made = Watched(directory, "replication")
    try:
        made.start()
        made.wait_seen()
        yield made
    finally:
        made.end()
        assert made.pids() == [], "a process was left behind"


def nodes(page: WebDriver) -> dict[str, list[str]]:
    """The table of the database: name -> its other cells, the role first."""
    return {cells[0]: cells[1:] for cells in run(page, CELLS)}


def roles(page: WebDriver) -> dict[str, str]:
    return {name: cells[0] for name, cells in nodes(page).items()}


def test_a_switchover_is_seen_as_it_goes(browser: WebDriver, fleet: Watched) -> None:
    console(browser)
    browser.get(fleet.page)
    wait_until(lambda: roles(browser) == {"postgres-1": "primary", "postgres-2": "replica"}, "the roles")
    assert text(browser, "replicas-note") == "postgres-1 takes writes, 1 replica"
    wait_until(
        lambda: any("backed up since" in each for each in all_texts(browser, ".tier .note")), "backups"
    )
    with OpenLoad(fleet):
        wait_until(lambda: "far enough" in nodes(browser)["postgres-2"][-1], "reads at the replica, and why")
        wait_until(lambda: run(browser, RATES_ON_EACH_OTHER)[0] >= 5, "rates on the lines")
        assert run(browser, RATES_ON_EACH_OTHER)[1] == []
        Command(fleet, "switchover").wait_done()
        wait_until(
            lambda: roles(browser) == {"postgres-2": "primary", "postgres-1": "replica"}, "the new roles"
        )
        wait_until(lambda: "recovery" in " ".join(all_texts(browser, "#failovers li")), "the phases")
    [told] = all_texts(browser, "#failovers li")
    assert "postgres-1 → postgres-2" in told and "switchover" in told and "writes were away for" in told
    phases = run(
        browser, "return [...document.querySelectorAll('#failovers .phases i')].map(i => i.offsetWidth)"
    )
    assert len(phases) == 5 and all(width > 0 for width in phases)
    said = [event["text"] for event in fleet.events() if event["kind"] == "failover"]
    assert said[0] == "switchover: postgres-1 hands over" and "postgres-2 is the primary" in said[1]
    assert run(browser, OVERLAPPING) == [] and run(browser, CONTRAST) == [] and run(browser, NAMELESS) == []
    assert console(browser) == []
