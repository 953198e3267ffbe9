"""Settings: what is accepted, where it applies, how it is shown."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Invalid
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.settings import (
    SETTINGS,
    Groups,
    check_machine,
    effective,
    needs_reboot,
    parse_words,
    plan,
)

SUBNET = IPv4Network("192.168.9.0/24")
NODE = Device("02:00:00:00:00:01", "board", "node", "192.168.9.2", model="m", image="u/i:latest")
VNODE = Device(
    "52:54:00:00:00:02", "vm", "node", "192.168.9.3", virtual=True, model="m", image="u/i:latest"
)
UNKNOWN = Device("02:00:00:00:00:03", "unknown-000003", "unknown", "192.168.9.4")
SERVER = Device("02:00:00:00:00:04", "walt-server", "server", "192.168.9.1")


class ParseTests(SynchronousTestCase):
    def test_accepted(self) -> None:
        """Every setting takes the values of the reference."""
        for word, value in (
            ("netsetup=nat", 1), ("netsetup=LAN", 0), ("boot.retries=0", 0),
            ("boot.timeout=none", None), ("boot.timeout=60", 60), ("kexec.allow=False", False),
            ("mount.persist=TRUE", True), ("ram=2G", "2G"), ("cpu.cores=1", 1),
            ("disks=8G,1T[template=hybrid-boot-p]", "8G,1T[template=hybrid-boot-p]"),
            ("networks=walt-net,home[lat=8ms,bw=1Gbps]", "walt-net,home[lat=8ms,bw=1Gbps]"),
            ("boot.delay=random", "random"), ("boot.delay=0", "0"), ("expose=80:8080", "80:8080"),
            ("type=switch", "switch"), ("snmp.version=2", 2), ("snmp.version=3", 3),
            ("snmp.priv=12345678", "12345678"), ("snmp.auth.protocol=SHA256", "sha256"),
            ("snmp.community=private", "private"),
            ("lldp.explore=true", True), ("snmp.community=a=b", "a=b"),
        ):
            (parsed,) = parse_words([word]).values()
            self.assertEqual((word, parsed), (word, value))

    def test_no_machine_is_larger_than_the_server(self) -> None:
        """As it could never start."""
        self.assertIsNone(check_machine({"ram": "2G", "cpu.cores": 8}, 2048, 2))
        self.assertIsNone(check_machine({"cpu.cores": 2}, 0, 1))
        error = self.assertRaises(Invalid, check_machine, {"cpu.cores": 9}, 2048, 2)
        self.assertIn("cpu.cores=9: the server has 2 processors", str(error))
        error = self.assertRaises(Invalid, check_machine, {"ram": "4000G"}, 2048, 2)
        self.assertIn("ram=4000G: the server has 2048 MiB of memory", str(error))

    def test_mistyped_settings_get_the_right_one(self) -> None:
        """Names of settings; and several nodes as several words."""
        for word, text in (
            ("rma=1G", "did you mean ram?"), ("boot-timeout=60", "did you mean boot.timeout?"),
            ("node-2", "one word with commas"),
        ):
            self.assertIn(text, str(self.assertRaises(Invalid, parse_words, [word])))

    def test_refused(self) -> None:
        """A wrong value is refused with the name of the setting."""
        for word in (
            "netsetup=WAN", "boot.retries=-1", "boot.timeout=59", "boot.timeout=x", "ram=0M",
            "ram=512", "cpu.cores=0", "disks=8", "disks=8G[template=x]", "networks=home",
            "networks=walt-net,walt-net", "networks=walt-net[lat=8ms,lat=9ms]",
            "networks=walt-net[x=1]", "networks=walt-net[]", "networks=walt-net[lat=1Gbps]",
            "networks=walt-net,Home", "networks=walt-net,", "networks=walt-net,abcdefghijklmnop",
            "boot.delay=-1", "expose=80", "expose=80:8080,80:8081",
            "expose=0:1", "type=node", "snmp.version=4",
            "snmp.auth=1234567", "snmp.priv.protocol=rot13",
            "snmp.community=", "kexec.allow=1",
            "cpu.cores=٣",
        ):
            error = self.assertRaises(Invalid, parse_words, [word])
            self.assertIn(word.split("=")[0], str(error))
        for words in (["ram"], ["ramm=1G"], ["ram=1G", "ram=2G"]):
            self.assertRaises(Invalid, parse_words, words)

    @settings(deadline=None)
    @given(st.lists(st.text(max_size=40), max_size=3))
    def test_any_text_is_refused_or_parsed(self, words: list[str]) -> None:
        """Nothing but Invalid is raised, whatever is typed."""
        for name in (*SETTINGS, ""):
            try:
                parse_words([f"{name}={word}" for word in words[:1]] + words[1:])
            except Invalid:
                continue


class PlanTests(SynchronousTestCase):
    def test_all_or_nothing(self) -> None:
        """A setting that does not apply to one of the devices changes none."""
        error = self.assertRaises(Invalid, plan, [NODE, VNODE], {"ram": "1G"}, SUBNET)
        self.assertIn("board", str(error))
        (changed,) = plan([VNODE], {"ram": "1G", "boot.retries": 3}, SUBNET)
        self.assertEqual(dict(changed.conf), {"ram": "1G", "boot.retries": 3})
        self.assertRaises(Invalid, plan, [SERVER], {"netsetup": 1}, SUBNET)

    def test_switch_conversion_with_its_settings(self) -> None:
        """type=switch allows switch settings in the same request; dependencies hold."""
        values = parse_words([
            "type=switch", "snmp.version=2", "snmp.community=c", "lldp.explore=true",
            "poe.reboots=true",
        ])
        (switch,) = plan([UNKNOWN], values, SUBNET)
        self.assertEqual((switch.type, switch.conf["poe.reboots"]), ("switch", True))
        self.assertRaises(Invalid, plan, [switch], {"type": "switch"}, SUBNET)
        (bare,) = plan([UNKNOWN], {"type": "switch"}, SUBNET)
        self.assertRaises(Invalid, plan, [bare], {"lldp.explore": True}, SUBNET)
        self.assertRaises(Invalid, plan, [bare], {"poe.reboots": True}, SUBNET)

    def test_expose_is_for_one_device(self) -> None:
        """Server ports are unique, so expose takes one device; none takes any."""
        self.assertRaises(Invalid, plan, [NODE, VNODE], {"expose": "1:2"}, SUBNET)
        self.assertEqual(len(plan([NODE, VNODE], {"expose": "none"}, SUBNET)), 2)


class ShowTests(SynchronousTestCase):
    def test_defaults_and_groups(self) -> None:
        """Devices of one category with the same settings are shown together."""
        self.assertEqual(effective(SERVER, SUBNET), {})
        twin = Device("52:54:00:00:00:09", "vm2", "node", "192.168.9.9", True, model="m")
        found = Groups(SUBNET, lambda device: device.virtual)
        for device in (NODE, VNODE, twin):
            found.add(device)
        groups = found.rows()
        self.assertEqual(
            [(group["category"], group["names"]) for group in groups],
            [("nodes", ["board"]), ("virtual nodes", ["vm", "vm2"])],
        )
        self.assertEqual([one["settings"]["boot.timeout"] for one in groups], [180, 720])
        self.assertEqual(groups[0]["settings"]["netsetup"], "LAN")
        self.assertIs(groups[0]["settings"]["kexec.allow"], True)
        self.assertTrue(needs_reboot({"ram": "1G"}))
        self.assertFalse(needs_reboot({"boot.retries": 1}))
