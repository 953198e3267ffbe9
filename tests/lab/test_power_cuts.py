"""The power of the server fails at ten moments of work: what was answered is there afterwards.

Five moments a test: each cut is followed by a start, which takes minutes in an emulated machine.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.lab.busy import NET, STREAM
from tests.lab.installed import installed, why_not
from tests.lab.ledger import Ledger, first_images
from tests.lab.test_install import booted
from tests.patience import patient

DEFAULT = "walt:waltplatform/pc-x86-64-default"
BUSY = Path(__file__).with_name("busy.py")
PYTHON = (
    "WALT_SERVER=unix:/run/walt/rpc.sock WALT_USERNAME=alice /opt/walt/bin/python -I"
    " /root/busy.py"
)
ENOUGH = 3  # answers to commands before a cut: people are at work
SEED = "WALT_TEST_SEED"  # repeats the delays of another run


@dataclass(frozen=True)
class Moment:
    """When the power is cut: after what busy.py tells of a loop, and up to `later` seconds.

    `losing`: what the guest had not flushed is lost, too. Else what it had sent to its disk is
    there, in whatever order: kill(1) of QEMU, whose cache is in the memory of this machine.
    """

    loop: str
    state: str
    losing: bool = True
    later: float = 0.0
    without: str = ""  # a loop that would disturb


NAMES = (
    Moment("build", "done"),
    Moment("watch", "layer", without="save", losing=False),
    Moment("watch", "unnamed", without="save"),
    Moment("watch", "two names"),
    Moment("rename", "done"),
)
DATA = (
    Moment("save", "done"),
    Moment("watch", "layer", without="build"),
    Moment("log", "sent", losing=False),
    Moment("log", "done", later=0.5),
    Moment("point", "done", later=10.0),
)


class PowerCuts(TestCase):
    """Cuts, one after the other, of one server; and what there has to be after each of them."""

    skip = why_not()
    timeout = patient(1500)

    async def cuts(self, moments: Sequence[Moment]) -> None:
        """All answers hold, all images are whole, all nodes are answered to; a board boots."""
        from twisted.internet import reactor

        seed = int(os.environ.get(SEED, time.time()))
        chance = random.Random(seed)
        self.box = box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start(logged=True)
        await box.until_active()
        await self.prepare()
        ledger = Ledger(first_images())
        for number, moment in enumerate(moments):
            what = f"cut {number} ({moment}), {SEED}={seed}"
            if number:
                await box.run("sync")  # the beginning is not what is tried
            await self.cut(ledger, number, moment, chance.uniform(0, moment.later), what)
            await box.start(logged=True)
            await box.until_active()
            await self.look(ledger, number, what)
        await self.shells(ledger)
        board = box.board()
        board.boot()
        await booted(box, board.mac)
        await self.nodes(ledger)

    async def prepare(self) -> None:
        """Have images to work on."""
        box = self.box
        await box.put("/root/busy.py", BUSY.read_bytes())
        await box.ok("image", "clone", DEFAULT, "base", timeout=patient(100))
        for name in sorted(set(first_images()) - {"base"}):
            await box.ok("image", "duplicate", "base", name)

    async def cut(
        self, ledger: Ledger, number: int, moment: Moment, delay: float, what: str
    ) -> None:
        """Have people work until the moment comes; cut the power then."""
        box, come = self.box, Deferred[None]()

        def told(line: str) -> None:
            try:
                facts: dict[str, Any] = json.loads(line)
            except ValueError:
                return  # a line that the cut has cut
            if facts["loop"] == "failure":
                ledger.failures.append(str(facts))
                return
            ledger.note(number, facts)
            if (
                (facts["loop"], facts["state"]) == (moment.loop, moment.state)
                and ledger.answers >= ENOUGH and not come.called
            ):
                come.callback(None)

        loops = [
            one for one in ("build", "save", "rename", "register", "log", "point")
            if one != moment.without
        ]
        working = Deferred.fromCoroutine(box.try_to(
            f"{PYTHON} work {number} {' '.join(loops)}", timeout=patient(400), on_line=told
        ))
        working.addErrback(lambda _: None)  # it ends with the power

        async def reached() -> bool:
            self.assertEqual(ledger.failures, [], what)
            return come.called

        await box.until(reached, what, patient(200), every=0.005)
        await box.sleep(delay)
        await box.power_cut(losing=moment.losing)
        await working  # what left the machine before it ended counts

    async def look(self, ledger: Ledger, number: int, what: str) -> None:
        """All that was answered is there, and nothing is half done."""
        box = self.box
        there = json.loads(
            (await box.run(f"{PYTHON} look {number}", timeout=patient(60))).splitlines()[-1]
        )
        found = there["images"]
        self.assertEqual(ledger.differences(found), [], what)
        tables = json.loads(await box.ok("image", "show", "--json"))
        self.assertEqual({row["name"] for row in tables["own"]}, set(found), what)
        devices = json.loads(await box.ok("device", "show", "--json"))
        addresses = {row["mac"]: row["ip"] for row in devices["known"]}
        self.assertEqual(ledger.known.items() - addresses.items(), set(), what)
        self.assertEqual(ledger.points[number] - set(there["points"]), set(), what)
        self.assertTrue(there["run"] or number not in ledger.runs, what)
        lines = await box.ok(
            "log", "show", "--issuers", "server", "--history", "full", "--streams", STREAM,
            "--format", "{line}", f"^busy {number} ",
        )
        self.assertEqual(ledger.lines_missing(number, lines.splitlines()), [], what)
        ledger.settled(found)

    async def shells(self, ledger: Ledger) -> None:
        """Each image can be worked with."""
        for name in sorted(ledger.images):
            done = await self.box.walt("image", "shell", name, stdin=b"echo it works; exit\n")
            told = done.stdout + done.stderr
            self.assertIn(b"it works", done.stdout, (name, told))
            self.assertIn(b"the changes were discarded", told, name)

    async def nodes(self, ledger: Ledger) -> None:
        """Each machine that was registered gets its address, and what it starts from."""
        await self.box.run(
            "ip netns add node && ip link set eth2 netns node && ip -n node link set eth2 up"
        )
        asked = "".join(
            f"ip -n node link set eth2 address {mac} && ip -n node address flush dev eth2 &&"
            f" ip netns exec node busybox udhcpc -n -q -t 5 -T 3 -s /bin/true -i eth2 -r {ip}"
            f" 2>&1 | grep 'lease of {ip} ' && ip -n node address add {ip}/24 dev eth2 &&"
            f" ip netns exec node busybox wget -q -O - http://{NET}.1/boot/start.ipxe"
            " | grep '^#!ipxe' || exit 1\n"
            for mac, ip in sorted(ledger.known.items())
        )
        await self.box.run(asked, timeout=patient(10 * len(ledger.known)))


class NamesTests(PowerCuts):
    async def test_cuts(self) -> None:
        """While images are built, and get their names and others."""
        await self.cuts(NAMES)


class DataTests(PowerCuts):
    async def test_cuts(self) -> None:
        """While images are saved, lines are sent, and experiments keep what they measured."""
        await self.cuts(DATA)
