"""Whether a page of live logs stays usable while 20,000 lines a second come."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.system.browser import Browser
from tests.system.live import ROOT, LivePlatform
from tests.system.load import add_senders, figure
from tests.system.test_web import free_port

RATE, PERIOD, SENDERS = 20_000, 25, 10
WARM, MEASURED = 4.0, 8.0  # seconds
LETTERS = 9
# From a letter typed into a filter until the page is painted again.
LETTER = """
const done = arguments[0], box = [...document.querySelectorAll("label")]
  .find((one) => one.textContent.includes("Streams")).querySelector("input");
const begun = performance.now();
box.value += "x";
box.dispatchEvent(new Event("input", { bubbles: true }));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
"""


def spent(page: Browser) -> float:
    """Return the seconds that the main thread has worked."""
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float({metric["name"]: metric["value"] for metric in metrics}["TaskDuration"])


def watch(page: Browser) -> None:
    """Measure while lines come."""
    page.until(lambda: page.all(".lines div"), "lines", patience=30)
    time.sleep(WARM)
    before, begun = spent(page), time.monotonic()
    time.sleep(MEASURED)
    share = (spent(page) - before) / (time.monotonic() - begun)
    figure(f"main thread, live logs at {RATE} lines/s", 100 * share, "%")
    letters = [float(page.driver.execute_async_script(LETTER)) for _ in range(LETTERS)]
    figure("  what is typed is painted: median", statistics.median(letters), "ms")
    figure("  the slowest", max(letters), "ms", 200)
    begun = time.monotonic()
    page.click("nav a", "Session")
    page.shows("You are alice here")
    figure("  another page is there, driver included", 1000 * (time.monotonic() - begun), "ms")


async def measure(reactor: Any) -> None:
    """Print what a page does, and the longest turn of the server meanwhile."""
    platform = LivePlatform(reactor, net="192.168.188")
    platform.ui_port = free_port()
    platform.write_config()
    turns = platform.base / "turns"
    os.environ["WALT_TURNS"] = str(turns)
    addresses = [f"{platform.net}.{100 + number}" for number in range(SENDERS)]
    try:
        await platform.import_image()
        await platform.start()
        inside = await add_senders(platform, addresses)
        page = await deferToThread(Browser, f"http://127.0.0.1:{platform.ui_port}")
        try:
            link = (await platform.ok("web")).strip()
            await deferToThread(page.driver.execute_cdp_cmd, "Performance.enable", {})
            await deferToThread(page.go, link)
            await deferToThread(page.shows, "Nodes", "h1")
            await deferToThread(page.go, "/ui/logs?streams=^bench$&span=0")
            sending = ensureDeferred(platform.runner.run(
                [*inside, sys.executable, "-m", "bench.logs.paced", f"{platform.net}.1",
                 str(RATE), str(PERIOD), *addresses],
                env={"PYTHONPATH": str(ROOT)}, timeout=120,
            ))
            await deferToThread(watch, page)
            await sending
        finally:
            await deferToThread(page.close)
        await platform.sleep(2)
        told = json.loads(turns.read_text())
        figure("longest turn of the server, its start included (CPU)", told["longest"] * 1000,
               "ms", 50)
        for seconds, stack in told["long"]:
            print(f"turn of {seconds * 1000:.0f} ms:\n{stack}")
    finally:
        del os.environ["WALT_TURNS"]
        await platform.close()
