"""The power of the server fails while people work: what was answered is there afterwards."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.lab.box import NET, Box
from tests.lab.installed import installed, why_not
from tests.lab.test_install import booted
from tests.patience import patient

DEFAULT = "pc-x86-64-default"
ENOUGH = 2  # builds that were answered before the cut


class PowerCutTests(TestCase):
    skip = why_not()
    timeout = patient(1500)

    async def test_busy_minute(self) -> None:
        """Builds, renames and registrations, then no power; all answers hold, nodes boot."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        await box.ok("image", "clone", f"walt:waltplatform/{DEFAULT}", "base", timeout=patient(100))
        images, names, macs = {"base"}, dict[str, str](), set[str]()
        self.cut = False

        async def work(step: Callable[[int], Awaitable[None]]) -> None:
            for number in itertools.count(1):
                if self.cut:
                    return
                try:
                    await step(number)
                except Exception:
                    if not self.cut:
                        raise

        async def build(number: int) -> None:
            place = f"/root/context-{number}"
            await box.run(f"mkdir -p {place} && printf 'FROM base\\nRUN echo {number} >"
                          f" /root/number\\n' > {place}/Dockerfile")
            done = await box.walt("image", "build", "--from-dir", place, f"built-{number}")
            if done.status == 0:
                images.add(f"built-{number}")

        async def register(number: int) -> None:
            mac, ip = f"52:54:00:aa:03:{number % 256:02x}", f"{NET}.{100 + number % 100}"
            command = shlex.join([
                "/opt/walt/bin/walt-dhcp-event", "commit", "", "walt.node.pc-x86-64", ip, mac, "",
                "0", "unknown",
            ])
            done = await box.try_to(f"WALT_RPC_SOCKET=/run/walt/rpc.sock {command}")
            if done.status == 0:
                macs.add(mac)

        async def rename(number: int) -> None:
            old, new = f"clone-{number - 1}", f"clone-{number}"
            if number == 1:
                await box.ok("image", "clone", "--force", f"walt:waltplatform/{DEFAULT}", new)
                images.add(new)
                return
            done = await box.walt("image", "rename", old, new)
            if done.status == 0:
                images.discard(old)
                images.add(new)
            names[old] = new

        busy = gatherResults(
            [Deferred.fromCoroutine(work(one)) for one in (build, register, rename)],
            consumeErrors=True,
        )

        async def enough() -> bool:
            return len([one for one in images if one.startswith("built")]) >= ENOUGH

        await box.until(enough, "some images are built", patient(300))
        self.cut = True
        answered, known = set(images), set(macs)
        await box.power_cut()
        await busy
        await box.start()
        await box.until_active()
        tables = json.loads(await box.ok("image", "show", "--json"))
        there = {row["name"] for row in tables["own"]}
        # A rename that was under way may have been done, without its answer.
        missing = {one for one in answered - there if names.get(one) not in there}
        self.assertEqual(missing, set(), sorted(there))
        devices = json.loads(await box.ok("device", "show", "--json"))
        self.assertEqual(known - {row["mac"] for row in devices["known"]}, set())
        for name in sorted(there):
            self.assertIn("it works", await self.shell(box, name, "echo it works"), name)
        for name in sorted(answered):
            if name.startswith("built-"):
                text = await self.shell(box, name, "cat /root/number")
                self.assertIn(name.removeprefix("built-"), text)
        board = box.board()
        board.boot()
        await booted(box, board.mac)

    async def shell(self, box: Box, name: str, command: str) -> str:
        """Return what a command says in a shell of an image; nothing is saved."""
        done = await box.walt("image", "shell", name, stdin=f"{command}; exit\n".encode())
        self.assertIn(b"the changes were discarded", done.stdout + done.stderr, name)
        return done.stdout.decode(errors="replace")
