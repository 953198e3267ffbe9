from __future__ import annotations

import time
from ipaddress import IPv4Interface

from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.dhcp import dhcp_config, only_calm_changes, render

INTERFACE = IPv4Interface("192.168.1.1/24")


def device(number: int, kind: str = "node", **more: object) -> Device:
    """Return a device whose MAC, name and address have one number."""
    return Device(
        f"02:00:00:00:00:{number:02x}", f"d-{number}", kind,  # type: ignore[arg-type]
        f"192.168.1.{number}", **more,  # type: ignore[arg-type]
    )


class DhcpConfigTests(SynchronousTestCase):
    def test_which_devices(self) -> None:
        """Devices of walt-net but the server get an entry, switches, nodes, then unknown."""
        devices = [
            device(9, "unknown"), device(8), device(7, "switch"), device(1, "server"),
            Device("02:00:00:00:01:01", "far", "node", "10.0.0.1"),
            Device("02:00:00:00:01:02", "none", "switch"),
            device(3, "switch"),
        ]
        config = dhcp_config(INTERFACE, devices)
        self.assertEqual([h.label for h in config.hosts], ["d-3", "d-7", "d-8", "d-9"])
        self.assertEqual(config.ranges[0], ("192.168.1.2", "192.168.1.2"))
        self.assertEqual(config.ranges[1], ("192.168.1.4", "192.168.1.6"))

    def test_order_of_devices_does_not_matter(self) -> None:
        """The same devices in another order give an equal value: no restart."""
        devices = [device(n) for n in (4, 9, 2, 7)]
        self.assertEqual(dhcp_config(INTERFACE, devices), dhcp_config(INTERFACE, devices[::-1]))

    def test_vpn_entries(self) -> None:
        """An enrolled node has two entries; the real MAC is always in the NAT group."""
        config = dhcp_config(INTERFACE, [device(5, vpn_mac="52:54:00:00:00:05")])
        self.assertEqual(
            [(h.label, h.mac, h.ip, h.name, h.nat) for h in config.hosts],
            [
                ("d-5-vpn", "52:54:00:00:00:05", "192.168.1.5", "d-5", False),
                ("d-5-vpnboot", "02:00:00:00:00:05", "192.168.1.5", "d-5", True),
            ],
        )

    def test_labels_never_collide(self) -> None:
        """A device called like the VPN entry of another one does not break the file."""
        twin = Device("02:00:00:00:00:77", "d-5-vpn", "node", "192.168.1.77")
        config = dhcp_config(INTERFACE, [device(5, vpn_mac="52:54:00:00:00:05"), twin])
        self.assertEqual(len({h.label for h in config.hosts}), 3)

    def test_full_subnet_has_no_range(self) -> None:
        """When no address is left there is no range statement."""
        interface = IPv4Interface("192.168.1.1/30")
        text = render(dhcp_config(interface, [device(2)]))
        self.assertNotIn("range", text.split("subnet", 1)[1].split("on commit")[0])

    def test_what_could_break_the_file_is_left_out(self) -> None:
        """A bad MAC or name gets no entry, but its address stays taken."""
        devices = [
            Device('02:00:00:00:00:01"; }', "a1", "node", "192.168.1.2"),
            Device("02:00:00:00:00:02", 'x" { }', "node", "192.168.1.3"),
        ]
        config = dhcp_config(INTERFACE, devices)
        self.assertEqual(config.hosts, ())
        self.assertEqual(config.ranges, (("192.168.1.4", "192.168.1.254"),))

    def test_groups(self) -> None:
        """The NAT group gives a router, the LAN group does not."""
        text = render(dhcp_config(INTERFACE, [device(2), device(3, conf={"netsetup": 1})]))
        nat, lan = text.split("group {\n  option routers 192.168.1.1;\n")[1].split("\n}\n", 1)
        self.assertIn("host d-3 ", nat)
        self.assertIn("host d-2 ", lan)
        self.assertNotIn("routers", lan)

    def test_calm_changes(self) -> None:
        """Only new unknown devices and switches may wait for a quiet moment."""
        old = dhcp_config(INTERFACE, [device(2), device(3, "unknown")])

        def calm(*devices: Device) -> bool:
            return only_calm_changes(old, dhcp_config(INTERFACE, devices))

        both = [device(2), device(3, "unknown")]
        self.assertTrue(calm(*both, device(4, "unknown"), device(5, "switch")))
        self.assertFalse(calm(*both, device(4)))
        self.assertFalse(calm(device(2), device(3)))
        self.assertFalse(calm(device(2)))
        self.assertFalse(calm(*both, device(4, "unknown", conf={"netsetup": 1})))

    def test_thousands_of_hosts(self) -> None:
        """3,000 hosts are derived and rendered within a reactor turn (CPU time)."""
        interface = IPv4Interface("10.0.0.1/20")
        devices = [
            Device(f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", f"node-{n}", "node",
                   f"10.0.{(n + 10) >> 8}.{(n + 10) & 255}")
            for n in range(3000)
        ]
        derived, rendered = [], []
        for _ in range(3):  # a busy machine may disturb one of them
            start = time.thread_time()
            config = dhcp_config(interface, devices)
            derived.append(time.thread_time() - start)
            start = time.thread_time()
            text = render(config)
            rendered.append(time.thread_time() - start)
        self.assertEqual(text.count("hardware ethernet"), 3000)
        self.assertLess(min(derived), 0.1)
        self.assertLess(min(rendered), 0.1)
