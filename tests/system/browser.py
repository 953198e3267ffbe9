"""Chromium without a screen, for tests of the pages: it fails for what pages must not do."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.patience import patient
from tests.places import ON_DISK

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
AXE = Path(__file__).resolve().parents[2] / ".assets/axe.min.js"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--window-size=1400,900",
    "--force-prefers-reduced-motion", "--hide-scrollbars",
)
# axe judges the impact of what it finds: minor, moderate, serious, critical.
SERIOUS = ("serious", "critical")
_T = TypeVar("_T")


def why_not() -> str | None:
    """Return why there is no browser here, None if there is."""
    missing = [one for one in (CHROMIUM, DRIVER) if shutil.which(one) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Browser:
    """One Chromium with a profile of its own. All methods wait: to be used in a thread."""

    def __init__(self, origin: str, *, patience: float = 15.0) -> None:
        self.origin = origin
        self.profile = tempfile.mkdtemp(prefix="wlchromium", dir=ON_DISK)
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={self.profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(patient(60))
        self.driver.set_page_load_timeout(patient(60))
        self._patience = patient(patience)
        # A page that one leaves is kept for the way back, without its socket.
        self._expected = ["Page entered Back-Forward Cache"]
        self.problems: list[str] = []

    def close(self) -> None:
        """End it."""
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def processes(self) -> list[int]:
        """Return what it consists of: who speaks with servers is a process of its own."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if f"--user-data-dir={self.profile}".encode() in words:
                found.append(int(place.name))
        return found

    def expects(self, text: str) -> None:
        """Let messages of the console that have this text pass."""
        self._expected.append(text)

    def go(self, address: str) -> None:
        """Open an address of the pages, or another one."""
        self.driver.get(address if "://" in address else self.origin + address)

    def run(self, script: str, *values: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *values)

    def all(self, selector: str) -> list[WebElement]:
        """Return the elements of a selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        """Return the text that a page shows, or a part of it."""
        return str(self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        ))

    def until(
        self, wanted: Callable[[], _T], what: str = "", patience: float | None = None
    ) -> _T:
        """Return the first value that is true."""
        limit = self._patience if patience is None else patient(patience)
        def tried(_: Any) -> _T | None:
            try:
                return wanted()
            except Exception as error:  # elements come and go
                if type(error).__module__.startswith("selenium"):
                    return None
                raise

        try:
            return WebDriverWait(self.driver, limit, 0.05).until(tried)
        except Exception as error:
            self.look()
            raise AssertionError(
                f"not seen: {what or wanted}; {error}\n{self.problems}\n{self.text()[:1000]}\n[…]\n"
                f"{self.text()[-1000:]}"
            ) from None

    def shows(self, text: str, selector: str = "body") -> None:
        """Wait until a text is there."""
        self.until(lambda: text in self.text(selector), f"{text!r} in {selector}")

    def lacks(self, text: str, selector: str = "body") -> None:
        """Wait until a text is not there."""
        self.until(lambda: text not in self.text(selector), f"no {text!r} in {selector}")

    def click(self, selector: str, text: str = "") -> None:
        """Click on the first element of a selector, with a text."""
        self.until(lambda: next(
            (one for one in self.all(selector)
             if text in (one.text or one.accessible_name) and one.is_enabled()), None
        ), f"{selector} {text!r}").click()

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self.until(lambda: self.all(selector), selector)[0].send_keys(text)

    def keys(self, text: str) -> None:
        """Type where the keyboard is: for terminals, Enter for an end of line."""
        for word in re.split(r"(\n|\x03)", text):
            keys = ActionChains(self.driver)
            if word == "\n":
                keys.send_keys(Keys.ENTER)
            elif word == "\x03":
                keys.key_down(Keys.CONTROL).send_keys("c").key_up(Keys.CONTROL)
            else:
                keys.send_keys(word)
            keys.perform()

    def point(self, selector: str) -> None:
        """Move the pointer to an element."""
        ActionChains(self.driver).move_to_element(self.all(selector)[0]).perform()

    def look(self) -> list[str]:
        """Return what was wrong since the start: errors of the console, violations of the policy,
        requests to elsewhere.
        """
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING") and not any(
                one in entry["message"] for one in self._expected
            ):
                self.problems.append(entry["message"])
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
            elif message["method"] == "Network.webSocketCreated":
                url = message["params"]["url"].replace("ws://", "http://")
            else:
                continue
            parts = urlsplit(url)
            if parts.scheme not in ("data", "blob", "about", "chrome") and not url.startswith(
                f"{self.origin}/"
            ):
                self.problems.append(f"a request to elsewhere: {url}")
        return self.problems

    def colours(self, scheme: str) -> None:
        """Prefer `dark` or `light` colours from now on."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}],
        })

    def serious(self) -> list[str]:
        """Return what axe finds to be serious for people who use the page otherwise."""
        self.driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        self.run(AXE.read_text())
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(done, (e) => done({error: String(e)}))"
        )
        if "violations" not in found:
            return [str(found)]
        return [
            f"{one['id']}: {one['help']} ({node['html'][:200]})"
            for one in found["violations"] if one["impact"] in SERIOUS for node in one["nodes"]
        ]

    def picture(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        path.write_bytes(self.driver.get_screenshot_as_png())
