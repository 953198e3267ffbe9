"""Networks of a server with a kernel that has VLANs, netem and NFS: what no container shows."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import TestCase

from tests.lab.box import SERVER
from tests.lab.installed import SETUP, installed, why_not
from tests.lab.test_install import STATE, booted
from tests.patience import patient

# A machine at the port of VLAN 12, in a namespace: eth2 is on the wire of eth1.
BESIDE = """
ip netns add beside && ip link set eth2 netns beside
ip -n beside link set eth2 up
ip -n beside link add link eth2 name eth2.12 type vlan id 12
ip -n beside link set eth2.12 up
"""
# A network of the site, which gives addresses.
SITE = """
ip netns add site && ip link add adm type veth peer name far netns site
ip -n site address add 10.9.8.1/24 dev far && ip -n site link set far up
printf '%s\\n' 'interface far' 'start 10.9.8.20' 'end 10.9.8.20' 'lease_file /root/leases' \\
    'pidfile /root/udhcpd.pid' 'option subnet 255.255.255.0' > /root/udhcpd.conf
touch /root/leases
systemd-run --quiet --unit=udhcpd ip netns exec site busybox udhcpd -f /root/udhcpd.conf
"""
DENIED = "journalctl -b --no-pager -o cat | grep 'apparmor=\"DENIED\"' || true"
ASK = "ip netns exec beside busybox udhcpc -n -q -t 4 -T 3 -s /bin/true -i"


class NetworkTests(TestCase):
    skip = why_not()
    timeout = patient(1500)

    async def setUp(self) -> None:
        """Start a server."""
        from twisted.internet import reactor

        self.box = await installed(reactor)
        self.addCleanup(self.box.close)
        await self.box.start()
        await self.box.until_active()

    async def test_board(self) -> None:
        """A restart keeps the board; limits of networks; NFS 3 and NBD of other machines."""
        box = self.box
        board = box.board()
        board.boot()
        node = await booted(box, board.mac)
        await self.restart_keeps(node)
        await self.limits()
        await board.cut()
        await box.run(BESIDE)
        await self.older_boards(node)
        await self.swap()

    async def test_wires(self) -> None:
        """Tagged and untagged; another network has its address by DHCP; nothing is left."""
        box = self.box
        await box.run(BESIDE)
        self.assertTrue(await self.lease("eth2"))
        self.assertFalse(await self.lease("eth2.12"))
        await self.set_up("network.walt-net.vlan=12")
        links = await self.links()
        self.assertEqual(links["eth1.12"]["master"], "walt-net")
        self.assertNotIn("master", links["eth1"])
        self.assertTrue(await self.lease("eth2.12"))
        self.assertFalse(await self.lease("eth2"))
        await box.run(SITE)
        await self.set_up(
            "network.walt-net.vlan=", "network.walt-adm.raw-device=adm", "network.walt-adm.ip=dhcp"
        )
        links = await self.links()
        self.assertNotIn("eth1.12", links)
        self.assertEqual(links["eth1"]["master"], "walt-net")
        self.assertTrue(await self.lease("eth2"))

        async def has_address() -> bool:
            return "10.9.8.20" in await box.run("ip -br address show dev walt-adm")

        await box.until(has_address, "walt-adm has an address", patient(60))
        await box.run("systemctl stop walt-server", timeout=patient(150))
        links = await self.links()
        self.assertNotIn("walt-net", links)
        self.assertEqual(await box.run("ip -br -4 address show dev adm | grep 10.9 || true"), "")
        self.assertEqual(await box.run("pgrep dhclient || true"), "")
        self.assertEqual(await box.run(DENIED), "")

    async def set_up(self, *changes: str) -> None:
        """Change server.conf as an administrator does; the server is restarted."""
        words = " ".join(f"--set {one}" for one in changes)
        await self.box.run(f"{SETUP} {words}", timeout=patient(300))
        await self.box.until_active()

    async def links(self) -> dict[str, Any]:
        """Return the interfaces."""
        found = json.loads(await self.box.run("ip -json -details link show"))
        return {one["ifname"]: one for one in found}

    async def lease(self, interface: str) -> bool:
        """Tell whether a machine at an interface beside is given an address."""
        done = await self.box.try_to(f"{ASK} {interface}", timeout=patient(60))
        return done.status == 0

    async def restart_keeps(self, node: str) -> None:
        """The board goes on, booted, over a restart of the service."""
        identity = ("node", "run", node, "--", "cat", "/proc/sys/kernel/random/boot_id")
        before = await self.box.ok(*identity)
        await self.box.run("systemctl restart walt-server", timeout=patient(150))
        await self.box.until_active()

        async def goes_on() -> bool:
            done = await self.box.walt(*identity)
            return done.stdout.decode() == before

        await self.box.until(goes_on, "the node is reached again", patient(60))

    async def older_boards(self, node: str) -> None:
        """The root file system by NFS 3, through the name that nodes know: their own address."""
        tables = json.loads(await self.box.ok("node", "show", "--all", "--json"))
        (ip,) = {
            row["ip"] for table in tables.values() for row in table if row["name"] == node
        }
        # What the kernel serves to one address, another client cannot ask for: so with that one.
        told = await self.box.run(
            f"ip -n beside address add {ip}/24 dev eth2 && mkdir -p /tmp/v3 &&"
            # One command: what is mounted there is seen nowhere else (ip-netns(8)).
            " ip netns exec beside sh -c 'mount -t nfs -o ro,vers=3,nolock"
            f" {SERVER}:{STATE}/nodes/{ip}/fs /tmp/v3 && grep /tmp/v3 /proc/mounts"
            " && ls -d /tmp/v3/bin /tmp/v3/boot && umount /tmp/v3'", timeout=patient(60),
        )
        self.assertIn("vers=3", told)

    async def swap(self) -> None:
        """The kernel's own NBD client gets an area, and reads what it wrote."""
        await self.box.run(
            "modprobe nbd && dd if=/dev/urandom of=/root/noise bs=1M count=4 status=none &&"
            f" ip netns exec beside nbd-client -nonetlink {SERVER} /dev/nbd0 -N swap-1G &&"
            " dd if=/root/noise of=/dev/nbd0 bs=1M oflag=direct status=none &&"
            " dd if=/dev/nbd0 bs=1M count=4 iflag=direct status=none | cmp - /root/noise &&"
            " nbd-client -d /dev/nbd0", timeout=patient(100),
        )
        await self.box.run("ip -n beside address flush dev eth2")

    async def limits(self) -> None:
        """Latency and bandwidth of a second network are the kernel's, by netem and tbf."""
        await self.box.ok("node", "create", "vnode1")
        await self.box.ok(
            "node", "config", "vnode1", "networks=walt-net,home-net[lat=20ms,bw=10Mbps]"
        )
        await self.box.ok("node", "reboot", "vnode1", timeout=patient(200))

        async def shaped() -> bool:
            told = await self.box.run("tc qdisc show")
            # What the way through the machine takes is left out: 19.7 ms.
            return bool(re.search(r"netem .*delay (19\.\d+|20)ms", told) and "rate 10Mbit" in told)

        await self.box.until(shaped, "the kernel limits the tap", patient(100))
        await self.box.ok("node", "remove", "--force", "vnode1")
