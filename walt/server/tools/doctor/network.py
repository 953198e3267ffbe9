"""Steps of a boot, tried from the server and from a place outside it, as a node would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address

from walt.common import ports
from walt.common.errors import WaltError, in_words
from walt.server.adapters.network.plans import BRIDGE, LinkPlan
from walt.server.adapters.volumes.loop import run
from walt.server.config.model import ServerConfig
from walt.server.domain.network.firewall import TABLE
from walt.server.runtime.watching import NoAnswer
from walt.server.tools.doctor import dhcp, probes
from walt.server.tools.doctor.findings import Doubtful, Skipped, Step, Wrong
from walt.server.tools.doctor.outside import Site

DHCP_PORT = 67
Probe = Callable[[], None]


class Network:
    """The steps; `site` is where they are tried from."""

    def __init__(self, config: ServerConfig, site: Site) -> None:
        self._config, self._site = config, site
        self._server = str(config.server_ip)
        self._offers: list[dhcp.Offer] = []
        self._silent: set[int] = set()  # ports of daemons that gave no answer at all

    def steps(self) -> list[Step]:
        """Return them in the order of a boot."""
        server, http = self._server, self._config.services.http_port
        return [
            Step("walt-net", self.bridge), Step("packet filter", self.packet_filter),
            Step("cable", self.cable),
            *(Step(f"DHCP {kind.name}", partial(self.dhcp, kind)) for kind in dhcp.CLASSES),
            Step("other DHCP servers", self.others),
            self._service("DNS", "named", "udp", 53, partial(probes.dns, server)),
            *(self._service(f"TFTP {name}", "in.tftpd", "udp", 69,
                            partial(probes.tftp, server, name))
              for name in sorted({kind.file for kind in dhcp.CLASSES if kind.file})),
            self._service("HTTP", "the server", "tcp", http, partial(probes.http, server, http)),
            self._service("NFS", "the NFS server", "tcp", ports.NFS, partial(probes.nfs, server)),
            self._service("calls", "the server", "tcp", ports.RPC,
                          partial(probes.closes, server, ports.RPC)),
            self._service("streams", "the server", "tcp", ports.STREAMS,
                          partial(probes.closes, server, ports.STREAMS)),
            self._service("swap", "nbdkit", "tcp", ports.NBD, partial(probes.nbd, server)),
        ]

    # -- interfaces ------------------------------------------------------------

    def bridge(self) -> str:
        """The bridge, its address, its port."""
        network = self._config.networks[BRIDGE]
        plan = LinkPlan(BRIDGE, network.raw_device, network.vlan)
        restart = "systemctl restart walt-server (or start it as you do)"
        try:
            shown = self._site.from_server(lambda: run(["ip", "-json", "address", "show"]))
        except (WaltError, OSError) as error:
            raise Wrong(
                f"the platform's network cannot be entered: {in_words(error)}", restart
            ) from None
        links = {load["ifname"]: load for load in json.loads(shown or "[]") if load}
        if BRIDGE not in links:
            raise Wrong(f"there is no bridge {BRIDGE}", restart)
        bridge = links[BRIDGE]
        if "UP" not in bridge.get("flags", ()):
            raise Wrong(f"{BRIDGE} is down", f"ip link set {BRIDGE} up")
        if self._server not in [address.get("local") for address in bridge.get("addr_info", ())]:
            raise Wrong(f"{BRIDGE} does not have the address {self._server}", restart)
        base = links.get(plan.base)
        if base is None:
            raise Wrong(f"there is no interface {plan.base}", "plug it in, or correct raw-device")
        if base.get("master") != BRIDGE:
            raise Wrong(f"{plan.base} is not a port of {BRIDGE}", restart)
        if network.raw_device is not None and "LOWER_UP" not in base.get("flags", ()):
            raise Wrong(f"nothing is connected to {plan.base}", "check its cable and its switch")
        return f"{BRIDGE} has {self._server}, and port {plan.base}"

    def packet_filter(self) -> str:
        """Our own rules are in force."""
        done = self._site.from_server(lambda: subprocess.run(
            ["nft", "list", "table", "ip", TABLE], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=30,
        ))
        if done.returncode != 0:
            raise Wrong(
                f"the table {TABLE} is not there: nodes could leave walt-net, or go nowhere",
                "systemctl restart walt-server (or start it as you do)",
            )
        return f"the table {TABLE} is in force"

    def cable(self) -> str:
        """A visitor of the network."""
        try:
            self._site.plug()
        except WaltError as error:
            raise Wrong(
                f"no cable into {BRIDGE} can be made: {error}", "is walt-net there?"
            ) from None
        return f"a visitor is connected to {BRIDGE}"

    # -- DHCP --------------------------------------------------------------------

    def dhcp(self, kind: dhcp.Class) -> str:
        """What a kind of machine is offered."""
        self._need_cable()
        self._not_again("dhcpd", DHCP_PORT)
        found = self._site.from_outside(partial(
            dhcp.offers, self._site.interface, kind, self._server
        ))
        self._offers += found
        ours = [offer for offer in found if offer.server == self._server]
        if not ours:
            self._silent.add(DHCP_PORT)
            raise Wrong(
                "the server offers no address" + (
                    f", but {found[0].server} does" if found else ""
                ), "see `daemons` above; are addresses left (walt device show)?",
            )
        offer = ours[0]
        interface = self._config.walt_interface
        if IPv4Address(offer.address) not in interface.network:
            raise Wrong(f"{offer.address} is not an address of {interface.network}",
                        "another program answers in the name of dhcpd")
        if offer.file != kind.file:
            raise Wrong(
                f"it is told to load {offer.file or 'nothing'!r}, not {kind.file or 'nothing'!r}",
                "the configuration of dhcpd was changed; restart the server",
            )
        if self._site.address is None:
            self._site.take(offer.address, interface.network.prefixlen)
        return f"{offer.address}, {offer.file or 'no file'}"

    def others(self) -> str:
        """Who else gives addresses away."""
        self._need_cable()
        foreign = sorted({offer.server for offer in self._offers if offer.server != self._server})
        if foreign:
            raise Wrong(
                f"another DHCP server answers in walt-net: {', '.join(foreign)}",
                "find and stop it (walt device show, walt device tree); boards boot by chance",
            )
        return "nobody else answers"

    def _not_again(self, who: str, port: int) -> None:
        """Do not wait a second time for one who is silent."""
        if port in self._silent:
            raise Skipped(f"{who} gives no answer, as told above")

    def _need_cable(self) -> None:
        if not self._site.plugged:
            raise Skipped("no visitor could be connected")

    # -- everything else --------------------------------------------------------

    def _service(self, name: str, who: str, kind: str, port: int, probe: Probe) -> Step:
        return Step(name, partial(self._both, who, kind, port, probe))

    def _both(self, who: str, kind: str, port: int, probe: Probe) -> str:
        """Ask from the server's place, then from outside: the difference is a firewall."""
        self._not_again(who, port)
        try:
            self._site.from_server(probe)
        except (NoAnswer, OSError) as error:
            if probes.is_silence(error):
                self._silent.add(port)
            holder = self._holder(kind, port)
            raise Wrong(
                f"{who} at {self._server}, port {port} ({kind}): {in_words(error)}"
                + (f" (held by {holder})" if holder else ""),
                "see `daemons` above, and the lines of the daemon in the log of the server",
            ) from None
        if self._site.address is None:
            raise Doubtful(f"{who} answers here; it was not asked from outside, without an address")
        try:
            self._site.from_outside(probe)
        except (NoAnswer, OSError) as error:
            raise Wrong(
                f"{who} answers this machine, but not nodes: port {port} ({kind}) is filtered"
                f" ({in_words(error)})",
                f"open it for walt-net in the firewall of this machine: nft list ruleset, then"
                f" accept iifname {BRIDGE} {kind} dport {port}",
            ) from None
        return f"{who} answers nodes at port {port}"

    def _holder(self, kind: str, port: int) -> str:
        option = "-Hlnpu" if kind == "udp" else "-Hlnpt"
        try:
            return probes.holders(
                self._site.from_server(lambda: run(["ss", option, "sport", "=", f":{port}"]))
            )
        except (WaltError, OSError):
            return ""
