"""A node that starts its next kernel itself: what it knows, what it may, what images have of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.common.errors import Invalid
from walt.server.tools import recipe
from walt.virtual.api import NodeInfo
from walt.virtual.kexec import Facts, allowed, read_facts, settings

CMDLINE = (
    "initrd=initrd root=/dev/nfs walt.node.model=pc-x86-64 walt.node.mac=52:54:00:AB:cd:01"
    " walt.server.ip=192.168.1.1"
    " ip=192.168.1.9:192.168.1.1:192.168.1.254:255.255.255.0:n9::off BOOTIF=01-52-54-00-ab-cd-01\n"
)
FACTS = Facts(
    "pc-x86-64", "52:54:00:ab:cd:01", "192.168.1.9", "192.168.1.254", "255.255.255.0", "n9",
    "192.168.1.1", "Board", "Rack 7",
)


class FactsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dmi = short_dir(self)
        (self.dmi / "sys_vendor").write_text("Board\n")
        (self.dmi / "product_name").write_text("Rack 7\n")

    def test_cmdline(self) -> None:
        """All that boot scripts need is there; some images tell less."""
        self.assertEqual(read_facts(CMDLINE, self.dmi), FACTS)
        for word in (" walt.node.mac=52:54:00:AB:cd:01", " walt.server.ip=192.168.1.1"):
            self.assertEqual(read_facts(CMDLINE.replace(word, ""), self.dmi), FACTS)

    def test_refused(self) -> None:
        """A system that was booted otherwise."""
        for text in (
            "", "quiet", CMDLINE.replace("192.168.1.9", "x"), CMDLINE.replace("pc-x86-64", "-x/"),
            CMDLINE.replace("255.255.255.0", "24"), CMDLINE.replace(":cd:01", "").replace("IF", ""),
        ):
            self.assertRaises(Invalid, read_facts, text, self.dmi)

    @given(st.text(max_size=80))
    def test_any_line(self, text: str) -> None:
        """Any line has facts, or is refused."""
        try:
            read_facts(text, Path("/none"))
        except Invalid:
            pass

    def test_settings(self) -> None:
        """The firmware's words, and what the server says of the node."""
        found = settings(FACTS, NodeInfo("other", "255.255.0.0", ""))
        for name, value in (
            ("manufacturer", "Board"), ("product", "Rack 7"), ("hostname", "other"),
            ("netmask", "255.255.0.0"), ("gateway", "192.168.1.254"),
            ("next-server", "192.168.1.1"), ("netX/mac:hexhyp", "52-54-00-ab-cd-01"),
        ):
            self.assertEqual(found.get(name), value, name)

    def test_allowed(self) -> None:
        """It may unless it is said that it may not."""
        self.assertEqual(
            [allowed(conf) for conf in ({}, {"kexec.allow": True}, {"kexec.allow": False})],
            [True, True, False],
        )


class ImageTests(SynchronousTestCase):
    def test_modules_of_images(self) -> None:
        """What images get is all that the tool imports; elsewhere it says why it does nothing."""
        root = short_dir(self)
        recipe.add_node_tools(root)
        for words, status, last in (
            ([], 1, b"walt-ipxe-kexec-reboot: this node is not rebooted by kexec\n"),
            (["--help"], 2, b"Usage: walt-ipxe-kexec-reboot, which reboots this node at once\n"),
        ):
            done = subprocess.run(
                [sys.executable, "-s", "-c", "from walt.virtual.kexec import main; main()", *words],
                env={"PYTHONPATH": str(root / recipe.TOOLS)}, cwd=root, capture_output=True,
                check=False,
            )
            self.assertEqual(done.returncode, status)
            self.assertTrue(done.stderr.endswith(last), done.stderr)
            self.assertNotIn(b"Traceback", done.stderr)
