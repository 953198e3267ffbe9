from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import TestCase

from tests.fakes.switches import FakeSwitches
from walt.server.domain.switches import poe, snmp_interfaces
from walt.server.domain.switches.interfaces import SnmpTarget
from walt.server.tools.set_poe import NO_POWER, TROUBLE, switched

TARGET = SnmpTarget("127.0.0.1", 2, "public")
PORTS = (101, 102, 103, 104)
CONTROL = (*poe.STANDARD, poe.ADMIN, 1, 103)


class SetPoeTests(TestCase):
    def setUp(self) -> None:
        self.switches = FakeSwitches()
        self.rows = self.switches.tables[TARGET] = {
            **{(*snmp_interfaces.IF_DESCR, port): b"port %d" % port for port in PORTS},
            **{(*snmp_interfaces.IF_TYPE, port): 6 for port in PORTS},
            **{(*poe.STANDARD, poe.ADMIN, 1, port): poe.TRUE for port in PORTS},
            **{(*poe.STANDARD, poe.DETECTION, 1, port): poe.DELIVERING for port in PORTS},
        }
        self.switches.writable = {CONTROL}

    async def test_on_and_off(self) -> None:
        """The object of that port is written, no other one."""
        before = dict(self.rows)
        self.assertIsNone(await switched(self.switches, TARGET, 103, False))
        self.assertEqual(self.rows, {**before, CONTROL: poe.FALSE})
        self.assertIsNone(await switched(self.switches, TARGET, 103, True))
        self.assertEqual(self.rows, before)

    async def test_reasons(self) -> None:
        """A port without power, one that may not be written, a switch that says nothing."""
        self.assertEqual(await switched(self.switches, TARGET, 77, True), NO_POWER)
        self.assertEqual(await switched(self.switches, TARGET, 102, True), TROUBLE)
        silent = SnmpTarget("127.0.0.9", 2, "public")
        self.assertEqual(await switched(self.switches, silent, 103, True), TROUBLE)

    def test_command(self) -> None:
        """Statuses; the reason alone on standard error."""
        def run(*words: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, "-m", "walt.server.tools.set_poe", *words],
                capture_output=True, text=True, check=False,
            )
            return done.returncode, done.stderr

        for words in (
            (), ("127.0.0.1", "3", "on", "2"), ("x", "3", "on", "2", "public"),
            ("127.0.0.1", "x", "on", "2", "public"), ("127.0.0.1", "0", "on", "2", "public"),
            ("127.0.0.1", "3", "maybe", "2", "public"), ("127.0.0.1", "3", "on", "9", "public"),
        ):
            self.assertEqual(run(*words)[0], 2, words)
        self.assertEqual(
            run("127.0.0.1", "3", "off", "2", "nobody-listens"), (1, f"{TROUBLE}\n")
        )
