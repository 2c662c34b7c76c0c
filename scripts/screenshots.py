"""Makes the pictures of the dashboard in docs/images from the running product: python scripts/screenshots.py

The RealWorld example runs at stages 1, 2, 4 and 5, is loaded by `outgrow load` for a while, and Debian's
Chromium looks at its dashboard: apt-get install chromium chromium-driver. Names of stages after the command
make theirs alone.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
COMMAND = (sys.executable, "-m", "outgrow.cli")
PORT = 8600
RATE = 150
LOADED_S = 130
"""Long enough that the charts and the tables of the last minute are full."""

SERVERS = 4
"""At the stages with a balancer: two at first, the others come while it is under load."""

SEARCHED = "articles/feed"
"""Among the slow requests: these have several parts to show."""

PHONE: dict[str, int | float | bool] = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
DESKTOP: dict[str, int | float | bool] = {
    "width": 1360,
    "height": 900,
    "deviceScaleFactor": 1.5,
    "mobile": False,
}


class Picture(NamedTuple):
    """What to show. `height` cuts the page; `tab` is opened first."""

    name: str
    scheme: str = "light"
    tab: str = "routes"
    device: dict[str, int | float | bool] = DESKTOP
    height: int | None = None


STAGES: dict[str, tuple[Picture, ...]] = {
    "single-server": (Picture("dashboard-stage-1"),),
    "separate-database": (
        Picture("dashboard-stage-2"),
        Picture("dashboard-dark", scheme="dark", tab="requests"),
        Picture("dashboard-phone", device=PHONE, height=1500),
    ),
    "load-balancer": (Picture("dashboard-stage-4"),),
    "replication": (Picture("dashboard-stage-5"),),
}


@contextmanager
def fleet(stage: str) -> Iterator[None]:
    """The example at a stage, under load."""
    with tempfile.TemporaryDirectory(prefix="outgrow-pictures-") as folder:
        place = Path(folder) / "conduit"
        shutil.copytree(ROOT / "examples" / "conduit", place, ignore=shutil.ignore_patterns(".outgrow"))
        file = place / "outgrow.toml"
        file.write_text(re.sub(r'^stage = ".*"', f'stage = "{stage}"', file.read_text(), flags=re.MULTILINE))
        call("up", place, "--detach", "--port", PORT)
        try:
            call("seed", place, "--", "--users", 200, "--articles", 2000, "--comments", 5000)
            arguments = [*COMMAND, "load", place, "--rate", RATE, "--duration", LOADED_S * 3]
            load = subprocess.Popen(
                [*map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(LOADED_S / 2)
            if stage == "load-balancer":
                call("scale", f"app={SERVERS}", "-C", place)
            if stage == "replication":
                time.sleep(LOADED_S / 6)
                call("failover", place)
                time.sleep(LOADED_S / 6)
                call("switchover", "-C", place)
                time.sleep(LOADED_S / 6)
            time.sleep(LOADED_S / 2)
            yield
            load.terminate()
            load.wait(30)
        finally:
            call("down", place)


def call(*arguments: object) -> None:
    subprocess.run([*COMMAND, *map(str, arguments)], check=True)


@contextmanager
def chromium() -> Iterator[WebDriver]:
    """A window that is not shown."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise SystemExit("chromium is missing: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield window
    finally:
        window.quit()


def take(window: WebDriver, picture: Picture) -> None:
    """One picture of the whole page, or of its upper part."""
    media = {"features": [{"name": "prefers-color-scheme", "value": picture.scheme}]}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", picture.device)
    window.get(f"http://127.0.0.1:{PORT + 1000}/")
    time.sleep(3)
    window.execute_script(f"document.getElementById('tab-{picture.tab}').click()")
    time.sleep(1.5)
    if picture.tab == "requests":
        rows = window.find_element("id", "requests-list")
        window.find_element("css selector", '#requests-order option[value="slowest"]').click()
        window.find_element("id", "requests-search").send_keys(SEARCHED)
        time.sleep(1)
        for _ in range(3):
            rows.send_keys(Keys.ARROW_DOWN)
    window.execute_script("window.scrollTo(0, 0); document.activeElement.blur()")
    time.sleep(1.5)
    size = window.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": picture.height or size["height"], "scale": 1}
    shot = window.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    path = IMAGES / f"{picture.name}.png"
    picture_of(shot["data"]).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} kB")


def picture_of(data: str) -> Image.Image:
    """With 256 colours, of which the page has fewer: a third of the bytes."""
    return (
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    )


def main() -> int:
    """Make them all. Returns the exit code."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with chromium() as window:
        for stage in sys.argv[1:] or STAGES:
            pictures = STAGES[stage]
            with fleet(stage):
                for picture in pictures:
                    take(window, picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
