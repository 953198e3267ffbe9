"""An emulated PC with a stock iPXE is led to the boot script of its node."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Interface
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.patience import patient
from tests.system.netns import Namespace, short_dir, why_not
from walt.common.leases import Sighting
from walt.server.adapters.dhcpd.daemon import DhcpdService
from walt.server.adapters.network.links import LinkPlan, Links
from walt.server.adapters.network.taps import Taps
from walt.server.adapters.tftpd.boot_files import open_inside
from walt.server.adapters.tftpd.daemon import TftpdService
from walt.server.adapters.tftpd.loaders import install_loaders
from walt.server.adapters.tftpd.tree import BootTreeStore
from walt.server.domain.network_services.boot_tree import boot_tree
from walt.server.domain.network_services.dhcp import dhcp_config
from walt.server.domain.network_services.tftp import TftpConfig
from walt.server.http.loaders import Loaders
from walt.server.runtime.process import ProcessRunner

MAC = "52:54:00:00:00:42"
FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")
INTERFACE = IPv4Interface("192.168.77.1/24")
# The script of a node, for the test: it reports that it was reached.
START = "#!ipxe\nset user-class walt.node.reached\nifconf --configurator dhcp\npoweroff\n"


class PagesOfLoaders(Site):
    """The web port, as far as firmware needs it; `fetched` are the paths asked for."""

    def __init__(self, state: Path) -> None:
        root = Resource()
        root.putChild(b"pxe", Loaders(partial(open_inside, state / "pxe", ())))
        super().__init__(root)
        self.fetched: list[bytes] = []

    def log(self, request: Request) -> None:
        """Keep the path of a request that is over; a connection is not kept for another one."""
        self.fetched.append(request.path)
        if request.channel is not None:
            request.channel.loseConnection()


class PlainIpxeTests(TestCase):
    skip = why_not("qemu-system-x86_64", "dhcpd", "in.tftpd", "ip", "nsenter", "setpriv")
    timeout = patient(240)

    async def test_stock_rom(self) -> None:
        """Plain iPXE loads walt.ipxe, asks again as a WalT node and chains start.ipxe."""
        self.assertEqual(
            await self.classes("-boot", "n", "-device", f"virtio-net-pci,netdev=n,mac={MAC}"),
            ["iPXE", "walt.node.pc-x86-64", "walt.node.reached"],
        )

    async def test_uefi(self) -> None:
        """UEFI firmware without iPXE loads it, and goes on as a BIOS does."""
        self.assertEqual(
            await self.uefi(), ["", "iPXE", "walt.node.pc-x86-64", "walt.node.reached"]
        )
        self.assertEqual(self.site.fetched, [])

    async def test_uefi_http(self) -> None:
        """One that boots by HTTP alone fetches it from the web port."""
        found = await self.uefi(*(word for version in (4, 6) for word in (
            "-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=no",
        )))
        self.assertEqual(found, ["", "iPXE", "walt.node.pc-x86-64", "walt.node.reached"])
        # A later iPXE looks for a script beside itself first.
        self.assertEqual(
            {*self.site.fetched} - {b"/pxe/autoexec.ipxe"}, {b"/pxe/walt-x86-64-snponly.efi"}
        )

    async def uefi(self, *more: str) -> list[str]:
        """Start a PC with this firmware."""
        if not FIRMWARE.exists():
            self.fail(f"{FIRMWARE} is missing: install package ovmf")
        return await self.classes(
            "-M", "q35", "-cpu", "max", "-bios", str(FIRMWARE), "-m", "512",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=", *more,
        )

    async def classes(self, *machine: str) -> list[str]:
        """Start an emulated PC; return the user classes of its leases until its own script."""
        namespace, state = Namespace(self), short_dir(self)
        runner = ProcessRunner(reactor, namespace.launcher)
        links = Links(reactor, runner, state)
        await links.up(LinkPlan("walt-net", ip=INTERFACE))
        await Taps(runner).create_tap("tap0", "walt-net")
        install_loaders(state)
        (state / "tftp-static" / "start.ipxe").write_text(START)
        await BootTreeStore(reactor, runner, state / "nodes").apply(
            boot_tree(INTERFACE, [], {})
        )
        events: list[Sighting] = []
        dhcpd = DhcpdService(
            reactor, namespace.launcher, directory=state / "dhcpd", runtime=state / "run",
            place=namespace.inside,
        )
        dhcpd.leases.observe(events.append)
        tftpd = TftpdService(
            reactor, namespace.launcher, directory=state / "tftpd", runtime=state / "run",
            place=namespace.inside,
        )
        await dhcpd.apply(dhcp_config(INTERFACE, [], ping_check=False))
        await tftpd.apply(TftpConfig(INTERFACE.ip, state))
        self.site = PagesOfLoaders(state)
        with namespace.inside():
            port = reactor.listenTCP(80, self.site, interface=str(INTERFACE.ip))
        self.addCleanup(port.stopListening)
        for one in (dhcpd, tftpd):
            one.startService()
            self.addCleanup(one.stopService)
        argv = namespace.launcher.command([
            "qemu-system-x86_64", "-accel", "tcg", "-m", "128", "-nodefaults", "-display", "none",
            "-no-reboot", "-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no", *machine,
        ])
        guest = reactor.spawnProcess(ProcessProtocol(), argv[0], argv, {"PATH": "/usr/bin:/bin"})
        self.addCleanup(lambda: guest.pid and guest.signalProcess("KILL"))
        end = reactor.seconds() + 200
        while not any(event.uci == "walt.node.reached" for event in events):
            self.assertLess(reactor.seconds(), end, f"only {events}")
            await deferLater(reactor, 0.2, lambda: None)
        self.assertEqual({event.mac for event in events}, {MAC})
        return [event.uci for event in events]
