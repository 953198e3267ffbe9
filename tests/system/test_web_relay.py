"""`walt web` on another machine: a browser there comes in over TLS, as long as its certificate is
good.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scripts import make_assets
from tests.attacks.test_c_web import Attacker
from tests.patience import patient
from tests.system import browser
from tests.system.browser import Browser
from tests.system.live import ROOT, LivePlatform, Program, why_not
from walt.server.adapters.network.namespace import inside

PORT = 12381  # where the pages are, if it is free


class RelayTests(TestCase):
    """The other machine is the namespace of the platform: its loopback is none of the server's."""

    skip = why_not() or browser.why_not()
    timeout = patient(240)

    async def start(self) -> None:
        """Start a platform."""
        from twisted.internet import reactor

        self.assertEqual(await deferToThread(make_assets.main), 0)  # unless they are there
        self.platform = platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        self.server = f"{platform.net}.1"
        self.space = Path("/run/netns") / platform.namespace

    def words(self, *words: str) -> list[str]:
        """Return the command line of the walt command there."""
        return ["nsenter", f"--net={self.space}", "--", sys.executable, "-m", "walt.client.main",
                *words]

    def environment(self, user: str) -> dict[str, str]:
        """Return that of the account of a user there."""
        home = self.platform.base / f"home-{user}"
        home.mkdir(exist_ok=True)
        return {"PYTHONPATH": str(ROOT), "HOME": str(home), "WALT_SERVER": self.server}

    async def enrol(self, user: str) -> None:
        """Give an account there a certificate."""
        told = await self.platform.ok("advanced", "add-user", user)
        found = re.search(r"walt advanced enrol \S+ (\S+)\n", told)
        assert found is not None, told
        await self.platform.runner.run(
            self.words("advanced", "enrol", self.server, found[1]), env=self.environment(user)
        )

    async def relay(self, user: str) -> tuple[Program, Any, str]:
        """Run `walt web` there; return it, its process, and its link."""
        program, words = Program(), self.words("web")
        process = self.platform.reactor.spawnProcess(
            program, words[0], words, env=self.environment(user), path=None
        )

        async def told() -> bool:
            self.assertFalse(program.ended.called, program.err)
            return b"\n" in program.out

        await self.platform.until(told, "a link")
        link = program.out.decode().strip()
        self.assertTrue(link.startswith(f"http://127.0.0.1:{PORT}/ui/#code="), link)
        return program, process, link

    async def there(self, work: Callable[[], Any]) -> Any:
        """Do something that waits, on the other machine."""
        def done() -> Any:
            with inside(self.space):
                return work()

        return await deferToThread(done)

    async def see(self, work: Callable[[], Any]) -> None:
        """Do something with the browser, and look whether that went well."""
        def watched() -> list[str]:
            work()
            return self.browser.look()

        self.assertEqual(await self.there(watched), [])

    async def test_certificate(self) -> None:
        """Pages and live lines go through; once the certificate is revoked, nothing does."""
        await self.start()
        await self.enrol("ann")
        program, process, link = await self.relay("ann")
        self.browser: Browser = await self.there(lambda: Browser(f"http://127.0.0.1:{PORT}"))
        self.addCleanup(self.there, lambda: self.browser.close())
        page = self.browser

        def look() -> None:
            page.go(link)
            page.shows("Nodes", "h1")
            page.click("nav a", "Session")
            page.shows("You are ann here")
            page.click("nav a", "Logs")
            page.shows("ann opened the web pages", ".lines")
            page.click("nav a", "Services")
            page.shows("● running")

        await self.see(look)
        [session] = json.loads((self.platform.state / "web-sessions.json").read_text())["sessions"]
        [row] = json.loads(await self.platform.ok("advanced", "show-certificates", "--json"))
        self.assertEqual((session["user"], session["serial"]), ("ann", row["serial"]))
        self.browser.expects("WebSocket")
        self.browser.expects("Failed to load resource")
        await self.platform.ok("advanced", "revoke", "ann")
        await self.see(lambda: page.shows("Not live since", ".banner"))
        kept = json.loads((self.platform.state / "web-sessions.json").read_text())["sessions"]
        self.assertEqual(kept, [])

        async def told() -> bool:
            return b"need a certificate" in program.err

        await self.platform.until(told, "why, where walt web runs")
        process.signalProcess("INT")
        await program.ended

    async def test_ports_of_others(self) -> None:
        """Who gets a port where somebody else had the pages cannot use what their browser kept."""
        await self.start()
        for user in ("ann", "bob"):
            await self.enrol(user)
        attacker = Attacker(PORT)
        program, process, link = await self.relay("ann")
        status, text = await self.there(lambda: attacker.login(link.partition("code=")[2]))
        self.assertEqual(status, 200, text)
        cookie, key = text.split()

        def known() -> tuple[int, int]:
            answer = attacker.ask("POST", "/ui/known", {}, cookie=cookie, x_walt_key=key)
            opened, one = attacker.open(key, cookie)
            one.close()
            return answer[0], opened

        self.assertEqual(await self.there(known), (200, 101))
        process.signalProcess("INT")
        await program.ended
        program, process, link = await self.relay("bob")
        self.assertEqual(await self.there(known), (403, 403))
        # Nor is a link of another worth anything there, and it is used up.
        process.signalProcess("INT")
        await program.ended
        program, process, _ = await self.relay("ann")
        self.assertEqual(await self.there(known), (200, 101))
        status, text = await self.there(lambda: attacker.login(link.partition("code=")[2]))
        self.assertEqual(status, 403, text)
        process.signalProcess("INT")
        await program.ended
