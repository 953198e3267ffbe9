"""What the server asks of the machine before it starts anything."""

from __future__ import annotations

import os
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walt.common.errors import Unavailable
from walt.server.assembly import preflight
from walt.server.config.model import NetworkConfig, Paths, ServerConfig, Services, Vpn


class PreflightTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        base = Path(self.mktemp()).absolute()
        self.config = ServerConfig(
            networks={"walt-net": NetworkConfig("walt-net", ip=IPv4Interface("10.1.0.1/24"))},
            paths=Paths(base / "state", base / "run", base / "cache", base / "log"),
        )
        self.mtab = base / "mtab"
        base.mkdir()

    def problems(self, *missing: str, ganesha: bool) -> str:
        """Return what is wrong on a machine without these programs."""
        try:
            preflight.check(
                self.config, lambda name: None if name in missing else f"/usr/bin/{name}",
                ganesha=ganesha, mtab=self.mtab,
            )
        except Unavailable as error:
            return str(error)
        return ""

    def test_no_table_of_mounts(self) -> None:
        """Ganesha exports nothing without /etc/mtab: the remedy is told; the kernel can do."""
        self.assertIn(f"ln -s ../proc/self/mounts {self.mtab}", self.problems(ganesha=True))
        self.assertEqual(self.problems(ganesha=False), "")
        self.mtab.symlink_to("../nowhere/mounts")
        self.assertIn(f"{self.mtab} is missing", self.problems(ganesha=True))
        self.mtab.unlink()
        self.mtab.write_text("/dev/vda / ext4 rw 0 0\n")
        self.assertEqual(self.problems(ganesha=True), "")

    def test_state_in_memory(self) -> None:
        """Ganesha does not export what lies on a tmpfs; the innermost mount counts."""
        root, above = "/dev/vda / ext4 rw 0 0\n", self.config.paths.state.parent
        memory = f"tmpfs {above} tmpfs rw 0 0\n"
        disk = f"/dev/vdb {above}/state ext4 rw 0 0\n"
        for table, refused in (
            (root, False), (root + memory, True), (memory + root, True),
            (root + memory + disk, False), (root + memory + memory.replace("tmpfs", "xfs"), False),
        ):
            self.mtab.write_text(table)
            told = self.problems(ganesha=True)
            self.assertEqual("lies in memory" in told, refused, table)
            self.assertEqual(self.problems(ganesha=False), "")

    def test_programs(self) -> None:
        """Packages of what is missing are named together; ganesha only where it exports."""
        self.mtab.touch()
        missing = ("dhcpd", "ganesha.nfsd")
        self.assertIn(
            "run: apt-get install isc-dhcp-server nfs-ganesha nfs-ganesha-vfs",
            self.problems(*missing, ganesha=True),
        )
        self.assertTrue(
            self.problems(*missing, ganesha=False).endswith("apt-get install isc-dhcp-server")
        )
        missing = ("lldpd", "snmpd")
        self.assertTrue(
            self.problems(*missing, ganesha=False).endswith("apt-get install lldpd snmpd")
        )
        self.config = self.config._replace(services=Services(lldp=False))
        self.assertEqual(self.problems(*missing, ganesha=False), "")

    def test_vpn(self) -> None:
        """Its sshd and the account of that are asked for where there is a VPN."""
        self.assertEqual(self.problems("sshd", ganesha=False), "")
        self.patch(preflight, "ACCOUNT", "walt-nobody-has-this")
        self.assertEqual(self.problems(ganesha=False), "")
        self.config = self.config._replace(vpn=Vpn(True, "a.org", "a.org", "permissive"))
        told = self.problems("sshd", ganesha=False)
        self.assertIn("apt-get install openssh-server", told)
        self.assertIn(
            "run: useradd --system --user-group --no-create-home --home-dir"
            " /var/lib/walt/vpn-endpoint --shell /bin/sh walt-nobody-has-this", told,
        )

    def test_units(self) -> None:
        """Where systemd is to run the daemons: it must be there, with their units, here."""
        places = self.mtab.parent / "units"
        places.mkdir()
        self.patch(preflight, "UNIT_PLACES", (places,))
        config = self.config._replace(services=Services(runner="systemd", ptp=False))

        def told(**changes: object) -> str:
            with self.assertRaises(Unavailable) as caught:
                preflight.check(
                    config._replace(**changes), lambda name: None,  # type: ignore[arg-type]
                    ganesha=False, mtab=self.mtab,
                )
            return str(caught.exception)

        self.patch(preflight, "SYSTEMD", places / "none")
        self.assertIn("systemd does not run this machine", told())
        self.assertIn("apt-get install", told())
        self.assertIn(" dbus ", told())
        self.patch(preflight, "SYSTEMD", places)
        self.assertIn("`network.namespace` asks for one apart", told(namespace="lab"))
        words = told()
        self.assertIn("units of daemons are missing or older (walt-server-dhcpd.service, ", words)
        self.assertIn("run: walt-server-setup", words)
        self.assertNotIn("ptpd", words)
        for name in ("dhcpd", "named", "tftpd", "snmpd", "lldpd"):
            (places / f"walt-server-{name}.service").write_text("[Service]\n")
        # The server would wait for ever for what such ones write.
        self.assertIn("missing or older (walt-server-dhcpd.service, ", told())
        for name in ("dhcpd", "named", "tftpd", "snmpd", "lldpd"):
            (places / f"walt-server-{name}.service").write_text("[Service]\nLogNamespace=walt\n")
        self.assertNotIn("units of daemons", told())
        children = config.services._replace(runner="children")
        self.assertNotIn("dbus", told(services=children))
