from __future__ import annotations

from ipaddress import IPv4Network

from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.devices.model import Device
from walt.server.domain.network.firewall import (
    FirewallConfig,
    Redirection,
    is_interface_name,
    render,
)
from walt.server.domain.network_services.nat import nat_addresses
from walt.server.domain.network_services.secondary import secondary_networks

SUBNET = IPv4Network("192.168.1.0/24")


class FirewallTests(SynchronousTestCase):
    def test_nat_addresses(self) -> None:
        """NAT devices of walt-net, sorted; never the server, nor a foreign address."""
        nat = {"netsetup": 1}
        devices = [
            Device("02:00:00:00:00:03", "c", "switch", "192.168.1.9", conf=nat),
            Device("02:00:00:00:00:01", "a", "node", "192.168.1.5", conf=nat),
            Device("02:00:00:00:00:02", "b", "node", "192.168.1.6"),
            Device("02:00:00:00:00:04", "d", "unknown", "10.0.0.5", conf=nat),
            Device("02:00:00:00:00:05", "e", "unknown", None, conf=nat),
            Device("02:00:00:00:00:06", "s", "server", "192.168.1.1", conf=nat),
        ]
        self.assertEqual(nat_addresses(devices, SUBNET), ("192.168.1.5", "192.168.1.9"))

    def test_empty_set(self) -> None:
        """Without NAT device and guarded interface nothing is written for them."""
        text = render(FirewallConfig(SUBNET))
        self.assertNotIn("elements", text)
        self.assertNotIn("8021q", text)
        self.assertNotIn("elements = {  }", text)

    def test_secondary_networks(self) -> None:
        """Frames pass inside each secondary network, told from the settings of nodes."""
        def vnode(number: int, networks: str) -> Device:
            return Device(
                f"52:54:00:00:00:0{number}", f"v{number}", "node", f"192.168.1.{number}",
                virtual=True, conf={"networks": networks},
            )

        names = secondary_networks([
            vnode(2, "walt-net,office[bw=1Gbps]"), vnode(3, "home,walt-net,office"),
            vnode(4, "what another version wrote"),
        ])
        self.assertEqual(names, ("home", "office"))
        text = render(FirewallConfig(SUBNET, networks=names))
        for name in ("walt-net", "home", "office"):
            self.assertIn(f'iifname "{name}" oifname "{name}" accept\n', text)

    def test_boards_of_the_vpn(self) -> None:
        """Web requests to entry points, and ssh of enrolled boards, come to the server."""
        wanted = Redirection("192.168.1.1", ("10.9.0.1", "10.9.0.2"), 8080, ("192.168.1.7",), 2222)
        text = render(FirewallConfig(SUBNET, redirection=wanted))
        self.assertIn(
            'iifname "walt-net" ip saddr 192.168.1.0/24 ip daddr != 192.168.1.0/24 ip daddr'
            " { 10.9.0.1, 10.9.0.2 } tcp dport 80 dnat to 192.168.1.1:8080\n", text
        )
        self.assertIn(
            "ip saddr { 192.168.1.7 } ip daddr 192.168.1.1 tcp dport 22 redirect to :2222\n", text
        )
        for none in (None, wanted._replace(entry_points=(), boards=())):
            self.assertNotIn(
                "prerouting", render(FirewallConfig(SUBNET, redirection=none))
            )
        usual = render(FirewallConfig(SUBNET, redirection=wanted._replace(ssh=22)))
        self.assertNotIn("redirect", usual)

    def test_interface_names(self) -> None:
        """What could be read as an option, or is too long, names no interface."""
        for good in ("eth0", "eno1.12", "walt-net"):
            self.assertTrue(is_interface_name(good))
        for bad in ("", "-x", "a b", "x" * 16, 'e"t', "a/b"):
            self.assertFalse(is_interface_name(bad))
