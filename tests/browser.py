"""A headless Chromium for the tests of pages, where there is one: the browser of the distribution, driven by selenium."""

import json
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")


@contextmanager
def browser():
    """A selenium driver with the browser's log on; skips where selenium, Chromium or its driver is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pages are not opened in a browser")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver here: pages are not opened in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def look(driver, path, width=1280, height=900, dark=False):
    """Open a page in a window of that size and in those colours."""
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(path.as_uri())


def requests(driver) -> set[str]:
    """What the pages have asked for since the last call, by scheme: file alone if nothing came from the network."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return {url.split(":", 1)[0] for url in urls}


def hover(driver, selector, number=0):
    """Move the mouse over the n-th element that the selector finds."""
    place = driver.execute_script(
        "const e = document.querySelectorAll(arguments[0])[arguments[1]]; e.scrollIntoView({block: 'center'});"
        "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]",
        selector, number,
    )  # fmt: skip
    event = {"type": "mouseMoved", "x": place[0], "y": place[1], "pointerType": "mouse"}
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
