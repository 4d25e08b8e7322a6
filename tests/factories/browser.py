"""Debian's Chromium, headless: what a person does on the page of the service, and what axe says of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

REQUIRED = "TANS_REQUIRE_CHROMIUM"
_PROGRAMS = ("chromium", "chromedriver")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking")
_FAULTS = {"serious", "critical"}


class Page:
    """A page in a browser."""

    def __init__(self, driver: Chrome, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".map((one) => one.textContent.replaceAll('\\u00a0', ' '))",
            selector,
        )
        return found

    def count(self, selector: str) -> int:
        return len(self.texts(selector))

    def until(self, condition: str, limit_s: float = 120.0) -> None:
        """Wait until an expression of the page holds."""
        said = "[...document.querySelectorAll('.problem, .status')].map((one) => one.textContent)"
        try:
            WebDriverWait(self.driver, limit_s, 0.05).until(lambda _: self.run(f"return Boolean({condition})"))
        except Exception as error:
            raise AssertionError(
                f"{condition}: not within {limit_s} s; {self.run(f'return {said}')} {self.errors()}"
            ) from error

    def drop(self, selector: str, paths: Sequence[Path]) -> None:
        """Drop files and folders on an element, as from a file manager."""
        script = "arguments[0].scrollIntoView({block: 'center'}); const box = arguments[0].getBoundingClientRect();"
        x, y = self.run(f"{script} return [box.x + box.width / 2, box.y + box.height / 2]", self.find(selector))
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "x": x, "y": y, "data": data}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)

    def set_width(self, width: int) -> None:
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def set_scheme(self, scheme: str) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def faults(self) -> list[str]:
        """Serious and critical faults of accessibility, with all that is folded open."""
        self.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        found = Axe().run(self.driver)["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}"
            for one in found
            if one["impact"] in _FAULTS
        ]

    def errors(self) -> list[str]:
        """Scripts that failed, and what the policy of the page refused. Answers that are errors are no such thing."""
        logged = [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]
        return [message for message in logged if "the server responded with a status of" not in message]


@contextlib.contextmanager
def browser(downloads: Path) -> Iterator[Page]:
    """Start a browser, or skip the test where there is none.

    Args:
        downloads: the folder for files that the page gives.
    """
    programs = [shutil.which(name) for name in _PROGRAMS]
    if not all(programs):
        missing = f"wants {' and '.join(_PROGRAMS)}: apt-get install chromium chromium-driver"
        assert not os.environ.get(REQUIRED), missing
        pytest.skip(missing)
    options = ChromeOptions()
    options.binary_location = str(programs[0])
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(programs[1])))
    try:
        behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        page = Page(driver, downloads)
        page.set_width(1280)
        page.set_scheme("light")
        yield page
    finally:
        driver.quit()
