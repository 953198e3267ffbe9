"""Run with `python -m bench.web [PART…]`, as root: the pages in Chromium, with 1,000 simulated
nodes. Parts: pages, viewers, logs.

What the browser does is told beside an empty page of the same run; what one viewer costs is
measured on the server that the pages come from.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from bench.simulator import Fleet
from bench.web import live_logs
from tests.fakes.viewers import FakeViewer
from tests.system.browser import Browser
from tests.system.live import LivePlatform
from tests.system.load import Load, figure, run_bench
from tests.system.test_web import free_port
from walt.server.domain.topics import PACE, Topic
from walt.server.http.ui import load_assets
from walt.server.http.websocket import text_message

NODES, SWITCHES, PORTS = 1000, 25, 40
TIMES = 9
VIEWERS = 100
WATCHED = 12  # seconds: before anybody is asked for a sign of life
# In each page before its own scripts: its socket can be had, and when something is there is noted.
HOOK = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(...words) { super(...words); window.sockets.push(this); }
};
window.awaited = (selector, count) => new Promise((resolve) => {
  const look = () => {
    if (document.querySelectorAll(selector).length >= count) {
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
    } else requestAnimationFrame(look);
  };
  look();
});
window.painted = () => new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
});
window.say = (value) => window.sockets.at(-1).onmessage({ data: JSON.stringify(value) });
"""
READY = "const [selector, count, done] = arguments; awaited(selector, count).then(done);"
ROWS = """
const done = arguments[0], node = (number, round) => ({
  name: `n${number}`, ip: `10.0.${number >> 8}.${number & 255}`, type: "physical", model: "pc",
  image_name: "image", owner: "ann", mac: String(number), state: round % 2 ? "booted" : "booting",
  stage: "root mounted", switch: `switch${number % 25}`, port: String(number % 40),
});
window.rows = (count, round) => Object.fromEntries(
  Array.from({ length: count }, (_, number) => [String(number), node(number, round)])
);
"""
CHANGED = ROWS + """
(async () => {
  say({ topic: "nodes", rows: rows(1000, 0) });
  await painted();
  const found = [];
  for (let round = 1; round < 10; round += 1) {
    const message = { topic: "nodes", set: rows(1000, round), gone: [] };
    const begun = performance.now();
    say(message);
    found.push(await painted() - begun);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  done(found);
})();
"""
BUSY = ROWS + """
(async () => {
  const end = performance.now() + 5000;
  for (let round = 0; performance.now() < end; round += 1) {
    say({ topic: "nodes", set: rows(250, round), gone: [] });
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  done(0);
})();
"""
IDLE = "setTimeout(arguments[0], 5000);"
MAP = ROWS + """
(async () => {
  const ports = (number) => Array.from({ length: 40 }, (_, port) => ({
    port, name: String(port), interface: `g${port}`, numbers: {}, link: "up",
    poe: "on", poe_reason: null, peer: `n${number * 40 + port}`, evidence: "LLDP", confirmed: true,
  }));
  const switches = Object.fromEntries(Array.from({ length: 25 }, (_, number) => [String(number), {
    mac: String(number), name: `switch${number}`, ip: "10.1.1.1", model: "m", read: 1,
    failure: null, ports: ports(number),
  }]));
  say({ topic: "nodes", rows: rows(1000, 1) });
  await painted();
  const begun = performance.now();
  say({ topic: "topology", rows: switches });
  const end = await awaited("svg .port", 120);
  done(end - begun);
})();
"""


def busy(page: Browser, script: str) -> float:
    """Return the share of the main thread that a script of some seconds takes."""
    def spent() -> float:
        metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float({metric["name"]: metric["value"] for metric in metrics}["TaskDuration"])

    before, begun = spent(), time.monotonic()
    page.driver.execute_async_script(script)
    return (spent() - before) / (time.monotonic() - begun)


def in_browser(origin: str, link: str) -> None:
    """Measure what the pages do."""
    page = Browser(origin)
    try:
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HOOK})
        page.driver.execute_cdp_cmd("Performance.enable", {})
        page.go(link)
        page.shows(str(NODES), "[role=status]")

        def ready(path: str, selector: str, count: int) -> float:
            times = []
            for _ in range(TIMES):
                page.go(path)
                times.append(page.driver.execute_async_script(READY, selector, count))
            return statistics.median(times)

        empty = ready("/ui/session", "main h1", 1)
        full = ready("/ui/nodes", "tbody.rows tr", 40)
        figure("an empty page is ready, warm", empty, "ms")
        figure("1,000 nodes are there, those in view painted, warm", full, "ms", 500)
        figure("1,000 rows changed are painted", statistics.median(
            page.driver.execute_async_script(CHANGED)), "ms", 100)
        figure("main thread at rest", 100 * busy(page, IDLE), "%")
        figure("main thread, 1,000 changes/s", 100 * busy(page, BUSY), "%", 25)
        page.go("/ui/map")
        page.shows("switches")
        drawn = page.driver.execute_async_script(MAP)
        figure("map of 1,000 nodes, what is in view", drawn, "ms", 150)
    finally:
        page.close()


class Viewers:
    """Sockets that take what they are sent; all methods wait."""

    def __init__(self, origin: str, cookie: str, key: str) -> None:
        self.origin, self.cookie, self.key = origin, cookie, key
        self.open: list[socket.socket] = []

    def add(self, count: int) -> None:
        """Open sockets that follow the nodes, and take their rows."""
        host = self.origin.removeprefix("http://")
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", int(host.partition(":")[2])))
            connection.sendall((
                f"GET /ui/socket HTTP/1.1\r\nHost: {host}\r\nOrigin: {self.origin}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
                f"Sec-WebSocket-Protocol: walt.1, key.{self.key}\r\nCookie: {self.cookie}\r\n\r\n"
            ).encode())
            connection.settimeout(30)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            text = b'{"watch": ["nodes"]}'
            connection.sendall(b"\x81" + bytes([128 | len(text)]) + bytes(4) + text)
            connection.settimeout(0.1)  # nobody answers pings here: all must be there within 45 s
            self.open.append(connection)
            try:
                while connection.recv(1 << 20):
                    pass
            except TimeoutError:
                pass

    def close(self) -> None:
        """Close them."""
        for connection in self.open:
            connection.close()


def enter(origin: str, code: str) -> tuple[str, str]:
    """Return the cookie and the key for the code of a link."""
    import http.client

    connection = http.client.HTTPConnection(origin.removeprefix("http://"))
    connection.request("POST", "/ui/login", json.dumps({"code": code}), {
        "origin": origin, "sec-fetch-site": "same-origin", "content-type": "application/json",
    })
    answer = connection.getresponse()
    key = json.loads(answer.read())["key"]
    return str(answer.headers["set-cookie"]).partition(";")[0], key


def topic_cost() -> float:
    """Return the CPU that 1,000 changes a second for 100 viewers take of rules and encoding."""
    clock = Clock()
    row = json.dumps({"name": "node-000001", "ip": "10.0.0.1", "state": "booted", "x": "y" * 300})
    rows = {str(number): row for number in range(NODES)}

    async def ask() -> dict[str, str]:
        return rows

    topic = Topic("nodes", ask, text_message, clock)
    viewers: list[Any] = [FakeViewer() for _ in range(VIEWERS)]
    for viewer in viewers:
        topic.watch(viewer)
    begun = time.process_time()
    seconds = 10
    for turn in range(int(seconds / PACE)):
        for number in range(int(NODES * PACE)):
            rows[str((turn * 7 + number) % NODES)] = f'{row[:-1]}, "turn": {turn}}}'
            topic.changed()
        clock.advance(PACE)
        for viewer in viewers:
            viewer.got.clear()
    return (time.process_time() - begun) / seconds


def crowd_costs(changes: int) -> None:
    """Print what viewers take of a core, by real sockets, each side in a process of its own."""
    found = {}
    for count in (1, VIEWERS + 1):
        serving = subprocess.Popen(
            [sys.executable, "-m", "bench.web.crowd", "serve", str(changes), str(WATCHED)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert serving.stdin is not None
        assert serving.stdout is not None
        port = serving.stdout.readline().strip()
        watching = subprocess.Popen(
            [sys.executable, "-m", "bench.web.crowd", "watch", port, str(count), "60"],
            stdout=subprocess.PIPE, text=True,
        )
        serving.stdin.write("\n")
        serving.stdin.flush()
        found[count] = json.loads(serving.stdout.readline())
        serving.wait()
        least = int(watching.communicate()[0])
        # One change of a row has some 400 bytes: nobody was left out.
        assert least > changes * WATCHED * 200, (count, least)
    one, many = found[1]["cpu"], found[VIEWERS + 1]["cpu"]
    figure(f"CPU: one viewer, {changes} changes/s, the changes themselves included", 100 * one, "%")
    figure(f"CPU: {VIEWERS} viewers more", 100 * (many - one), "%", 10)
    figure("  longest turn of the reactor", found[VIEWERS + 1]["turn"] * 1000, "ms", 50)


async def main(reactor: Any) -> None:
    """Measure everything, or the parts named."""
    wanted = sys.argv[1:] or ["pages", "viewers", "logs"]
    if "viewers" in wanted:
        await deferToThread(crowd_costs, NODES)
    if "logs" in wanted:
        await live_logs.measure(reactor)
    if "pages" in wanted:
        await pages(reactor)


async def pages(reactor: Any) -> None:
    """Measure pages with all nodes."""
    assets = load_assets()
    own = sum(
        len(asset.packed) for name, asset in assets.items()
        if not name.startswith("vendor/terminal") and not name.endswith("LICENSES.txt")
    )
    figure("first page, compressed", own / 1000, "kB", 60)
    terminal = sum(len(asset.packed) for name, asset in assets.items() if "vendor/terminal" in name)
    figure("a terminal more, compressed", terminal / 1000, "kB", 130)
    figure("CPU: rules for 100 viewers, 1,000 changes/s", 100 * topic_cost(), "%", 10)
    platform = LivePlatform(reactor, net="192.168.180", prefix=21)
    platform.ui_port = free_port()
    platform.write_config()
    load, fleet = Load(platform), Fleet(platform, NODES)
    try:
        await platform.import_image()
        await platform.start()
        await fleet.start(crowd=50)
        origin = f"http://127.0.0.1:{platform.ui_port}"
        link = (await platform.ok("web")).strip()
        await deferToThread(in_browser, origin, link)
        code = (await platform.ok("web")).strip().partition("code=")[2]
        viewers = Viewers(origin, *await deferToThread(enter, origin, code))
        await deferToThread(viewers.add, 5)
        before = load.memory()
        await deferToThread(viewers.add, VIEWERS)
        figure("memory of the server for one viewer", (load.memory() - before) * 1024 / VIEWERS,
               "KiB", 64)
        viewers.close()
    finally:
        await platform.close()
        await fleet.stop()


if __name__ == "__main__":
    run_bench(main)
