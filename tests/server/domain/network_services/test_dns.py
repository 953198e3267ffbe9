from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walt.server.domain.devices.derived import Followed
from walt.server.domain.devices.model import Device
from walt.server.domain.network_services.dns import (
    DnsNames,
    dns_config,
    forwarders,
    next_serial,
    render_named_conf,
    same_beside_serial,
    zones,
)

SERVER = IPv4Address("192.168.77.1")
SUBNET = IPv4Network("192.168.76.0/23")
DEVICES = [
    Device("02:00:00:00:00:02", "node-2", "node", "192.168.77.20"),
    Device("02:00:00:00:00:01", "switch-1", "switch", "192.168.76.5"),
    Device("02:00:00:00:00:03", "far", "unknown", "10.0.0.3"),
    Device("02:00:00:00:00:04", "walt-server", "server", "192.168.77.1"),
    Device("02:00:00:00:00:05", "Server", "unknown", "192.168.77.5"),
    Device("02:00:00:00:00:06", "bad name", "unknown", "192.168.77.6"),
]


class ForwardersTests(SynchronousTestCase):
    def test_rules(self) -> None:
        """IPv4 servers but loopback and ourselves; none: 8.8.8.8."""
        for text, expected in (
            ("nameserver 10.0.0.1\n# nameserver 10.0.0.9\nnameserver 10.0.0.2 \n",
             ("10.0.0.1", "10.0.0.2")),
            ("nameserver 127.0.0.53\nnameserver 10.0.0.1\n", ("10.0.0.1",)),
            (f"nameserver {SERVER}\n", ("8.8.8.8",)),
            ("nameserver fe80::1\nsearch x\n", ("8.8.8.8",)),
            ("", ("8.8.8.8",)),
            ("nameserver 1.2.3.4; }; x\nnameserver\n", ("8.8.8.8",)),
        ):
            self.assertEqual(forwarders(text, SERVER), expected, text)

    def test_local_resolver(self) -> None:
        """One of this machine: whom it asks, or itself, never our own named."""
        local = "nameserver 127.0.0.53\noptions edns0 trust-ad\n"
        for upstream, isolated, expected in (
            ("nameserver 10.0.0.1\nnameserver 10.0.0.2\n", False, ("10.0.0.1", "10.0.0.2")),
            ("nameserver 10.0.0.1\n", True, ("10.0.0.1",)),
            (f"nameserver {SERVER}\nnameserver 127.0.0.1\n", False, ("127.0.0.53",)),
            ("", False, ("127.0.0.53",)), ("", True, ("8.8.8.8",)),
        ):
            found = forwarders(local, SERVER, upstream=upstream, isolated=isolated)
            self.assertEqual(found, expected, upstream)

    @given(st.text(max_size=200), st.text(max_size=200))
    def test_any_text(self, text: str, upstream: str) -> None:
        """There is always at least one forwarder, and it is an address, not our own."""
        found = forwarders("nameserver " + text, SERVER, upstream="nameserver " + upstream)
        self.assertTrue(found)
        for one in found:
            self.assertNotEqual(IPv4Address(one), SERVER)


class ZonesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.config = dns_config(SERVER, SUBNET, DEVICES)

    def test_names(self) -> None:
        """Devices of walt-net by address; the server's own names cannot be taken."""
        self.assertEqual(
            [(network.prefix, network.names) for network in self.config.networks],
            [("192.168.76", (("switch-1", "192.168.76.5"),)),
             ("192.168.77", (("node-2", "192.168.77.20"),))],
        )

    def test_made_of_what_changed(self) -> None:
        """Networks in which nothing changed are the same objects; an empty one is gone."""
        names, followed = DnsNames(SERVER, SUBNET), Followed()
        names.change(followed.look(DEVICES))
        before = names.config()
        renamed = [
            replace(one, name="other") if one.name == "node-2" else one for one in DEVICES
        ]
        names.change(followed.look(renamed))
        after = names.config()
        self.assertEqual(after, dns_config(SERVER, SUBNET, renamed))
        self.assertIs(after.networks[0], before.networks[0])
        self.assertEqual(after.networks[1].forward, "other IN A 192.168.77.20\n")
        names.change(followed.look([one for one in renamed if one.name != "other"]))
        self.assertEqual(names.config().networks, before.networks[:1])

    def test_texts(self) -> None:
        """One forward zone and one reverse zone per /24 in use."""
        texts = zones(self.config, 42)
        self.assertEqual(sorted(texts), [
            "walt.127.in-addr.arpa.zone", "walt.76.168.192.in-addr.arpa.reverse.zone",
            "walt.77.168.192.in-addr.arpa.reverse.zone", "walt.forward.zone",
            "walt.localhost.zone",
        ])
        forward = texts["walt.forward.zone"].splitlines()
        self.assertEqual(forward[-4:], [
            "switch-1 IN A 192.168.76.5", "server IN A 192.168.77.1",
            "node-2 IN A 192.168.77.20", "walt-server IN CNAME server",
        ])
        self.assertEqual(forward[0], "$TTL 604800")
        self.assertIn("    42 ; serial", forward)
        self.assertTrue(
            texts["walt.77.168.192.in-addr.arpa.reverse.zone"]
            .endswith("1 IN PTR server.walt.\n20 IN PTR node-2.walt.\n")
        )

    def test_serials(self) -> None:
        """Only the serial differs: the same; a rewritten zone always gets a higher one."""
        old, new = zones(self.config, 42), zones(self.config, 43)
        name = "walt.forward.zone"
        self.assertTrue(same_beside_serial(old[name], new[name]))
        self.assertFalse(same_beside_serial(old[name], new[name] + "x IN A 1.2.3.4\n"))
        self.assertEqual(next_serial(1000.7, old[name]), 1000)
        self.assertEqual(next_serial(42.0, old[name]), 43)
        self.assertEqual(next_serial(42.0, None), 42)

    def test_named_conf(self) -> None:
        """named listens on the server's address only and declares every zone."""
        text = render_named_conf(self.config, Path("/d"), Path("/r"))
        self.assertIn("listen-on { 192.168.77.1; };", text)
        self.assertIn("allow-transfer { none; };", text)
        self.assertIn("listen-on-v6 { none; };", text)
        self.assertIn('zone "walt" {', text)
        self.assertIn('file "/d/walt.76.168.192.in-addr.arpa.reverse.zone"', text)
        self.assertIn("forwarders { 8.8.8.8; };", text)

    def test_own_files_alone(self) -> None:
        """Nothing is read from files of a Debian release: each has others."""
        text = render_named_conf(self.config, Path("/d"), Path("/r"))
        self.assertNotIn("include", text)
        self.assertNotIn("/etc/", text)
        self.assertEqual(
            set(re.findall(r'file "/d/([^"]+)"', text)), set(zones(self.config, 42))
        )
