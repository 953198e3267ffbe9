"""The pages in a real browser, on a live platform with real and simulated nodes."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bench.simulator import Fleet
from scripts import make_assets
from tests.patience import patient
from tests.system import browser
from tests.system.browser import Browser
from tests.system.live import LivePlatform, why_not
from tests.system.switch_lab import Switch, explored, plug

SIMULATED = 1000
SAID = """
return [...document.querySelectorAll('.lines .text')].map((one) => one.textContent).join('');
"""
# What banners said since then, as nobody can look as fast as they go.
NOTED = """
window.banners = [];
new MutationObserver(() => {
  const banner = document.querySelector(".banner");
  if (banner) window.banners.push(banner.innerText);
}).observe(document.body, { childList: true, subtree: true });
"""
HOSTILE = ("<script>alert(1)</script><img src=x onerror=alert(2)>", "after-all")


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


ASSETS = Path(__file__).resolve().parents[2] / "walt/server/http/assets"
TEXTS = r"""
const done = arguments[1];
(async () => {
  const address = (text) => `data:text/javascript;base64,${btoa(text)}`;
  const texts = address(arguments[0].texts);
  const { shown, withoutEnds, LONGEST } = await import(texts);
  const { Blocks } = await import(address(arguments[0].records.replace("./texts.js", texts)));
  const block = (text) => {
    const line = new TextEncoder().encode(text), source = '[["n","s"]]';
    const bytes = new Uint8Array(12 + source.length + 16 + line.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, bytes.length - 4);
    view.setUint32(4, 1);
    view.setUint32(8, source.length);
    bytes.set(new TextEncoder().encode(source), 12);
    view.setUint32(12 + source.length + 12, line.length);
    bytes.set(line, 12 + source.length + 16);
    return bytes;
  };
  const read = (bytes, piece) => {
    const blocks = new Blocks(), found = [];
    for (let at = 0; at < bytes.length; at += piece) {
      for (const one of blocks.feed(bytes.subarray(at, at + piece))) found.push(...one.lines());
    }
    return found.map(({ text, more }) => [text, more]);
  };
  const two = new Uint8Array([...block("one"), ...block("n\u00e9")]);
  const ends = "\n".repeat(1 << 20);
  const cut = read(block("a" + "\u00e9".repeat(LONGEST)), 1000)[0];
  done({
    plain: shown("a b\t", "out"),
    controls: shown("\u001b[31mred\u0007\u2028\n12:00 other out forged", "out"),
    chunk: shown("b'a\\r\\nb\\x41\\\\\\n'", "vconsole"),
    quotes: shown('b"it\'s"', "vconsole"), odd: shown("b'", "vconsole"),
    cut: shown("b'a\\nb", "vconsole", 7),
    long: withoutEnds(`${ends}x${ends}`).length - ends.length,
    chunkOfEnds: shown(`b'${"\\n".repeat(1 << 19)}x'`, "vconsole").length,
    pieces: [1, 3, 7, 1000].map((piece) => read(two, piece)),
    huge: read(block("x".repeat(16 << 20)), 32768).map(([text, more]) => [text.length, more]),
    characters: [cut[0].length, cut[0].endsWith("\u00e9"), cut[1]],
  });
})().catch((error) => done({ error: String(error) }));
"""


VIEW = r"""
const done = arguments[1];
(async () => {
  const address = (text) => `data:text/javascript;base64,${btoa(text)}`;
  const texts = address(arguments[0].texts);
  const records = address(arguments[0].records.replace("./texts.js", texts));
  const pages = address(
    "export const signal = (value) => ({ value }), html = null, useEffect = null, useRef = null;"
  );
  const live = address(
    "export const live = null, openStream = () => ({ acknowledge() {} });"
  );
  const { LineView } = await import(address(
    arguments[0].lines.replace("./texts.js", texts).replace("./records.js", records)
      .replace("./vendor/pages.js", pages).replace("./live.js", live)
  ));
  const element = document.body;
  const view = new LineView({}, 0, true, false);
  view.open(element);
  const send = (text) => view.waiting.push({ count: 1, blocks: [{
    count: 1, size: text.length,
    lines: () => [{ moment: 0, issuer: "n", stream: "s", text, more: 0 }],
  }] });
  const look = () => [element.childElementCount, view.left.value, view.held.length];
  const found = {};
  const part = (name, count, size) => {
    for (let one = 0; one < count; one += 1) send("x".repeat(size));
    view.paint();
    found[name] = look();
  };
  part("many", 2100, 1);
  part("long", 600, 1 << 14);
  view.paused.value = true;
  part("paused", 40, 1 << 20);
  view.paused.value = false;
  part("after", 0, 0);
  part("huge", 1, 8 << 20);
  part("short", 3, 1);
  done(found);
})().catch((error) => done({ error: String(error) }));
"""


class TextsTests(TestCase):
    """What pages make of what nodes log."""

    skip = browser.why_not()
    timeout = patient(120)

    def run_in_page(self, script: str) -> Any:
        """Return what a script finds in an empty page, with modules of ours at hand."""
        page = Browser("about:blank")
        try:
            page.go("")
            return page.driver.execute_async_script(script, {
                name: (ASSETS / f"{name}.js").read_text() for name in ("texts", "records", "lines")
            })
        finally:
            page.close()

    async def test_sizes(self) -> None:
        """Of long lines, a page has fewer, and fewer wait while one reads."""
        # Lines in the page, lines left out, blocks that wait.
        self.assertEqual(await deferToThread(self.run_in_page, VIEW), {
            "many": [2000, 100, 0], "long": [256, 2444, 0], "paused": [256, 2468, 16],
            "after": [4, 2736, 0], "huge": [0, 2741, 0], "short": [3, 2741, 0],
        })

    async def test_texts(self) -> None:
        """They act nowhere, pose as no other line, and take no more time than they are long."""
        self.assertEqual(await deferToThread(self.run_in_page, TEXTS), {
            "plain": "a b\t", "controls": "red\u2407\u2421\n    12:00 other out forged",
            "chunk": "a\n    bA\\", "quotes": "it's", "odd": "b'",
            "cut": "a\n    b\u2026 (7 more bytes)", "long": 1,
            "chunkOfEnds": 5 * (1 << 19) + 1, "pieces": [[["one", 0], ["n\u00e9", 0]]] * 4,
            "huge": [[16384, (16 << 20) - 16384]], "characters": [8192, True, 16386],
        })


class PagesTests(TestCase):
    skip = why_not() or browser.why_not()
    timeout = patient(300)

    async def start(self, simulated: int = 0, *, image: bool = False) -> None:
        """Start a platform, with simulated nodes or the `image` of real ones; let a browser in
        as alice.
        """
        from twisted.internet import reactor

        self.assertEqual(await deferToThread(make_assets.main), 0)  # unless they are there
        self.platform = platform = LivePlatform(reactor, net="192.168.180", prefix=21)
        platform.ui_port = free_port()
        platform.write_config()
        self.fleet = Fleet(platform, simulated)
        if simulated:
            self.addCleanup(self.fleet.stop)  # after the server, which need not see them leave
        self.addCleanup(platform.close)
        if simulated:
            # What nodes mount is prepared for all of them meanwhile: an orderly end waits for it.
            self.addCleanup(self.kill)
        if simulated or image:
            await platform.import_image()
        await platform.start()
        if simulated:
            for node in self.fleet.nodes:
                node.boot_time = 1.0
            await self.fleet.start(crowd=50)
        self.browser: Browser = await deferToThread(Browser, f"http://127.0.0.1:{platform.ui_port}")
        self.addCleanup(deferToThread, self.browser.close)
        link = (await platform.ok("web")).strip()
        await self.see(lambda page: page.go(link))

    async def kill(self) -> None:
        """End the server at once; nothing of its network stays."""
        await self.platform.stop(SIGKILL)
        await self.platform.runner.run(
            ["ip", "netns", "del", self.platform.namespace], check=False
        )

    async def see(self, work: Callable[[Browser], Any]) -> Any:
        """Do something with the browser, and look whether that went well."""
        def watched() -> Any:
            result = work(self.browser)
            problems = self.browser.look()
            if problems:
                raise AssertionError("\n".join(problems))
            return result

        return await deferToThread(watched)

    def picture(self, page: Browser, name: str) -> None:
        """Save what is seen, for README and the manual, where WALT_TEST_PICTURES says."""
        place = os.environ.get("WALT_TEST_PICTURES")
        if place:
            page.picture(Path(place) / f"{name}.png")

    async def accessible(self) -> None:
        """Look at the page as somebody does who cannot see it, or not well."""
        found = await deferToThread(self.browser.serious)
        self.assertEqual(found, [])

    async def test_nodes(self) -> None:
        """1,000 nodes: search, sort, filters, selection; actions as the command does them."""
        await self.start(SIMULATED)
        await self.see(self.all_are_there)
        await self.see(self.search_and_sort)
        await self.accessible()
        await self.held_rows()
        await self.see(self.deeds)

    async def test_a_node(self) -> None:
        """A virtual node is made, boots before one's eyes, reboots, and is removed."""
        await self.start(image=True)
        await self.see(self.create)
        await self.see(self.node_page)
        await self.accessible()
        await self.see(lambda page: page.colours("dark"))
        await self.accessible()
        await self.see(lambda page: page.colours("light"))
        await self.see(self.shell)
        await self.see(self.console)
        await self.accessible()
        for look in (self.logs, self.boots, self.images, self.services):
            await self.see(look)
            await self.accessible()
        await self.see(self.reboot)
        told = await self.platform.ok("log", "show", "--platform", "--history", "-5m:")
        self.assertRegex(told, "vm.*reboot|reboot.*vm")
        # A node of somebody else: one is warned of it.
        await self.platform.ok("node", "create", "others", user="bob")
        await self.see(self.others)
        await self.see(self.remove)
        await self.see(self.console_of_others)
        await self.restart()
        await self.see(lambda page: page.until(
            lambda: len(page.text(".xterm-rows").strip()) > 10, "the console again", patience=30
        ))
        # A node is removed while its page is open.
        await self.platform.ok("node", "remove", "--force", "others", user="bob")
        await self.see(lambda page: page.shows("There is no node of this name (any more)."))

    def create(self, page: Browser) -> None:
        """Make a node, and see it boot."""
        page.click("main button", "Create")
        page.type("dialog input", "vm")
        page.click("dialog button", "Create")
        page.shows("Create vm: done", ".deeds")
        page.shows("booting: ", "tbody")
        page.until(lambda: "● booted" in page.text("tbody"), "a booted node", patience=90)

    def node_page(self, page: Browser) -> None:
        """Facts, boots and log lines of one node, found by its link."""
        page.click("tbody a", "vm")
        page.shows("booted", "dl")
        self.assertEqual(page.driver.current_url, f"{page.origin}/ui/nodes/vm")
        page.shows("created", "main table")
        page.shows("walt-init", ".lines")
        self.picture(page, "web-node")

    def shell(self, page: Browser) -> None:
        """A shell on the node; what runs wild in it can be stopped."""
        page.click("main a", "Shell")
        page.until(lambda: page.all(".xterm-rows"), "a terminal")
        page.shows("#", ".xterm-rows")
        page.keys("echo $((6*7))$((6*7)); printf '\\360\\237\\220\\247\\n'\n")
        page.shows("4242", ".xterm-rows")
        page.shows("\U0001f427", ".xterm-rows")
        page.keys("stty size\n")
        page.until(lambda: re.search(r"^\d+ \d+$", page.text(".xterm-rows"), re.M), "a size")
        page.keys("yes\n")
        page.shows("y\ny\ny", ".xterm-rows")
        page.keys("\x03")
        page.keys("echo its $((40+2)) over\n")
        page.shows("its 42 over", ".xterm-rows")
        page.keys("exit\n")
        page.shows("It ended")

    def console(self, page: Browser) -> None:
        """What it said before one came, and what it says to what one types."""
        page.go("/ui/nodes/vm/console")
        page.until(lambda: len(page.text(".xterm-rows").strip()) > 10, "its past")
        page.keys("\necho c$((1000+1))\n")
        page.shows("c1001", ".xterm-rows")
        signs = r"\033]0;title\007\033[5n\342\200\256"  # a title, a question, right to left
        # The pause is longer than what a piece of a console in the log lasts.
        parts = (HOSTILE[0][:20], f"{HOSTILE[0][20:]}{signs}{HOSTILE[1]}\\n")
        page.keys(f"printf '{parts[0]}'; sleep 0.3; printf '{parts[1]}'\n")
        page.shows(HOSTILE[0], ".xterm-rows")
        self.assertNotIn("title", page.driver.title)
        page.driver.refresh()
        page.shows("c1001", ".xterm-rows")
        self.picture(page, "web-console")

    def logs(self, page: Browser) -> None:
        """The server filters; the address says how."""
        page.go("/ui/logs?issuers=server&span=3600")
        page.shows("node vm is booted", ".lines")
        page.type("input[type=search]", "is booted$")
        page.click("form button", "Show")
        page.until(lambda: "lines=is" in page.driver.current_url, "the filter")
        page.until(lambda: 0 < page.text(".lines").count("\n") + 1 == page.text(".lines").count(
            "is booted"), "such lines alone")
        self.picture(page, "web-logs")
        # What a node says does nothing here, and hides nothing.
        page.go("/ui/logs?issuers=vm&consoles=1&span=3600")
        # The log has consoles in pieces of 50 ms: a line may begin in one and end in another.
        page.until(lambda: all(one in page.run(SAID) for one in HOSTILE), "what the console said")
        self.assertEqual(page.all(".lines script, .lines img"), [])
        page.go("/ui/logs?lines=(")
        page.shows("(", "[role=alert]")

    def boots(self, page: Browser) -> None:
        """Each boot with its stages, and percentiles."""
        page.go("/ui/boots")
        page.shows("alice/pc-x86-64-small", "table")
        page.shows("created")
        self.picture(page, "web-boots")

    def images(self, page: Browser) -> None:
        """Those of all users."""
        page.click("nav a", "Images")
        page.shows("waltplatform", "tbody")
        page.shows("alice", "tbody")

    def services(self, page: Browser) -> None:
        """Daemons, the database, disks."""
        page.click("nav a", "Services")
        for text in ("postgres", "dhcpd", "● running", "GiB"):
            page.shows(text)
        self.picture(page, "web-services")

    def reboot(self, page: Browser) -> None:
        """The question names the node; it boots again."""
        page.go("/ui/nodes")
        page.shows("vm", "tbody")
        page.click("tbody input[type=checkbox]")
        page.click("main button", "Reboot")
        page.shows("vm", "dialog")
        page.click("dialog button", "Reboot")
        page.shows("booting: ", "tbody")
        page.shows("Reboot vm: done", ".deeds")

    def others(self, page: Browser) -> None:
        """Whose a node is stands in the question."""
        page.go("/ui/nodes?owner=bob")
        page.shows("others", "tbody")
        page.click("tbody input[type=checkbox]")
        page.click("main button", "Boot an image")
        page.shows("others belongs to bob", "dialog")
        page.click("dialog button", "Cancel")

    def remove(self, page: Browser) -> None:
        """Disks and settings go; what was logged may stay."""
        page.go("/ui/nodes?q=vm")
        page.shows("vm", "tbody")
        page.click("tbody input[type=checkbox]")
        page.click("main button", "Remove")
        page.shows("Their log lines", "dialog")
        page.click("dialog button", "Remove")
        page.shows("Remove vm: done", ".deeds")
        page.shows("There is no such node.")

    async def test_sessions(self) -> None:
        """A page outlives the server; whoever logs out is out."""
        await self.start(image=True)
        await self.map()
        await self.see(self.ten_tabs)
        await self.asleep()
        await self.log_out()

    def all_are_there(self, page: Browser) -> None:
        """The code left the address; all rows come at once."""
        self.assertEqual(page.driver.current_url, f"{page.origin}/ui/nodes")
        page.shows(str(SIMULATED), "[role=status]")
        page.until(lambda: page.all("tbody.rows tr"), "rows")
        # Those near the window are in the page; there is a place for all.
        self.assertLess(len(page.all("tbody.rows tr")), 300)
        top = page.all("tbody.rows th")[0].text
        page.run("scrollTo(0, document.body.scrollHeight)")
        page.until(lambda: page.all(f"tr[aria-rowindex='{SIMULATED + 1}']"), "the last row")
        page.run("scrollTo(0, 0)")
        page.until(lambda: page.all("tbody.rows th")[0].text == top, "the first row")
        self.picture(page, "web-nodes")

    def search_and_sort(self, page: Browser) -> None:
        """The state is in the address, and the way back works."""
        page.type("input[type=search]", "02:5a nothing")
        page.shows("There is no such node.")
        part = self.fleet.nodes[0].ip[:-1]
        page.go(f"/ui/nodes?q={part}&state=booted&sort=ip&down=1")
        page.until(lambda: 0 < len(page.all("tbody.rows tr")) < 300, "some rows")
        addresses = page.run(
            "return [...document.querySelectorAll('tbody.rows tr')]"
            ".map((row) => row.cells[7].innerText)"
        )
        numbers = [int(one.rpartition(".")[2]) for one in addresses]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        self.assertTrue(all("192.168." in one for one in addresses))
        page.click("th button", "Address")
        page.until(lambda: "down" not in page.driver.current_url, "another order")
        page.driver.back()
        page.until(lambda: "down=1" in page.driver.current_url)
        page.until(lambda: "descending" in [
            one.get_attribute("aria-sort") for one in page.all("thead th")
        ])

    async def held_rows(self) -> None:
        """Rows stay in their places while the pointer is among them, whatever happens."""
        def names(page: Browser) -> list[str]:
            return [one.text for one in page.all("tbody.rows th")]

        def point(page: Browser) -> list[str]:
            page.go(f"/ui/nodes?q={self.fleet.nodes[0].ip}")
            page.until(lambda: len(page.all("tbody.rows tr")) > 5)
            page.point("tbody.rows tr:nth-child(3) th")
            return names(page)

        before = await self.see(point)
        await self.platform.ok("node", "rename", before[1], "zz-top")
        await self.see(lambda page: page.shows("zz-top"))
        held = await self.see(names)
        self.assertEqual(held, [before[0], "zz-top", *before[2:]])

        def leave(page: Browser) -> None:
            page.point("header")
            page.until(lambda: names(page)[-1] == "zz-top", "the row in its new place")

        await self.see(leave)

    def deeds(self, page: Browser) -> None:
        """What is selected is listed before something is done to it, with whose it is."""
        page.go("/ui/nodes?q=zz-top")
        page.until(lambda: len(page.all("tbody.rows tr")) == 1)
        page.click("tbody input[type=checkbox]")
        page.click("main button", "Reboot")
        page.shows("zz-top", "dialog")
        page.click("dialog button", "Cancel")
        page.until(lambda: not page.all("dialog"), "no dialog")
        page.click("main button", "Create")
        page.type("dialog input", "-no-name")
        page.click("dialog button", "Create")
        page.shows("is not a valid device name", ".deeds")

    def console_of_others(self, page: Browser) -> None:
        """One is asked before; it stays open."""
        page.go("/ui/nodes/others/console")
        page.shows("others belongs to bob.", "dialog")
        page.click("dialog button", "Go on")
        page.until(lambda: len(page.text(".xterm-rows").strip()) > 10, "its console")

    async def map(self) -> None:
        """A switch and its ports, in their order, with power and who is there."""
        switch = Switch("access", "02:00:00:00:aa:01", 24)
        await plug(self, self.platform, switch, "192.168.180.201")
        await self.platform.event(
            "commit", "", "", "192.168.180.50", "02:00:00:00:00:50", "", "0", "unknown"
        )
        switch.sees("02:00:00:00:00:50", 3)
        switch.links(4, 2)
        node = "02:00:00:00:00:51"
        await self.platform.event(
            "commit", "", "walt.node.pc-x86-64", "192.168.180.51", node, "", "0", "unknown"
        )
        switch.sees(node, 5)
        switch.feeds(5, False)
        name = await explored(self.platform, switch.mac, "poe.reboots=true")
        await self.platform.ok("device", "rescan", name)

        def look(page: Browser) -> None:
            page.click("nav a", "Map")
            page.shows(name)
            page.shows("unknown-000050", "main")
            cells = [one.get_attribute("aria-label") for one in page.all("svg [aria-label]")]
            self.assertEqual(len(cells), 24)
            self.assertEqual(cells[2], "port 3, interface g3, unknown-000050, link up, power on")
            self.assertEqual(
                cells[3], "port 4, interface g4, nothing known here, link down, power on"
            )
            self.assertEqual(
                cells[4], "port 5, interface g5, node-000051, booting, link up, power on"
            )
            page.type("input[type=search]", "0050")
            page.shows("1 ports", "[role=status]")
            self.picture(page, "web-map")
            # The cell of a node leads to it, and it tells where it is.
            page.click("svg a")
            page.until(
                lambda: page.driver.current_url == f"{page.origin}/ui/nodes/node-000051",
                "the page of the node",
            )
            page.shows(f"{name} g5", "dl")
            page.driver.back()
            page.shows("unknown-000050", "main")

        await self.see(look)
        await self.accessible()
        await self.see(lambda page: page.colours("dark"))
        await self.accessible()
        await self.see(lambda page: page.colours("light"))

    def ten_tabs(self, page: Browser) -> None:
        """Each has a socket of its own, and all know who one is."""
        first = page.driver.current_window_handle
        for _ in range(9):
            page.driver.switch_to.new_window("tab")
            page.go("/ui/session")
            page.shows("You are alice here")
        for handle in page.driver.window_handles:
            page.driver.switch_to.window(handle)
            if handle != first:
                page.driver.close()
        page.driver.switch_to.window(first)

    async def asleep(self) -> None:
        """A tab that slept, with its machine or alone, shows how things are once it wakes up."""
        def sleep(page: Browser) -> None:
            page.go("/ui/map")
            page.shows("unknown-000050", "main")
            page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})

        await self.see(sleep)
        await self.platform.ok("device", "rename", "unknown-000050", "sleeper")
        await self.see(lambda page: page.driver.execute_cdp_cmd(
            "Page.setWebLifecycleState", {"state": "active"}
        ))
        await self.see(lambda page: page.shows("sleeper", "main"))
        await self.see(lambda page: page.run(NOTED))
        processes = self.browser.processes()
        self.assertGreater(await self.watching(), 0)
        for pid in processes:
            os.kill(pid, SIGSTOP)
        try:
            # Who does not answer for 45 s is let go, however long it sleeps then.
            await self.platform.until(self.nobody_watches, "the end of its socket", 90)
            await self.platform.ok("device", "rename", "sleeper", "sleeper-2")
        finally:
            for pid in processes:
                os.kill(pid, SIGCONT)
        self.browser.expects("WebSocket")
        await self.see(lambda page: page.shows("sleeper-2", "main"))
        await self.see(lambda page: page.lacks("Not live since"))
        banners = await deferToThread(self.browser.run, "return window.banners")
        self.assertIn("Not live since", "".join(banners))

    async def watching(self) -> int:
        """Return how many sockets of pages the server has."""
        done = await self.platform.runner.run([
            "nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", "curl", "-sS",
            "http://127.0.0.1/metrics",
        ])
        found = re.search(rb"\nwalt_ui_connections (\d+)", done.stdout)
        assert found is not None, done.stdout[:500]
        return int(found[1])

    async def nobody_watches(self) -> bool:
        """Tell whether the server has no socket of a page."""
        return await self.watching() == 0

    async def restart(self) -> None:
        """The page tells since when it is not live, and goes on by itself with a new server."""
        await self.platform.stop()
        self.browser.expects("ERR_CONNECTION_REFUSED")
        self.browser.expects("WebSocket")
        await self.see(lambda page: page.shows("Not live since", ".banner"))
        await self.platform.start()
        await self.see(lambda page: page.lacks("Not live since"))

    async def log_out(self) -> None:
        """From the command line, and by the page: the socket ends at once."""
        await self.platform.ok("web", "--logout")
        await self.see(lambda page: page.shows("Your session is over."))
        await self.accessible()
        link = (await self.platform.ok("web")).strip()

        def out(page: Browser) -> None:
            page.go(link)
            page.shows("Nodes", "h1")
            page.click("nav a", "Session")
            page.shows("You are alice here")
            page.click("main button", "Log out")
            page.shows("You have logged out.")
            page.go("/ui/nodes")
            page.shows("walt web")

        await self.see(out)
