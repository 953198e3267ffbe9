"""Interfaces of the platform through iproute2 (spec node-protocols §1.3).

Everything may be repeated: what is already as wanted stays, left-overs of a
server that died are taken over.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from walt.common.errors import CommandFailed, Unavailable
from walt.common.files import write_atomic
from walt.common.names import is_mac
from walt.server.adapters.network.plans import (
    BRIDGE,
    LinkPlan,
    forget,
    known,
    remember,
    remembered,
)
from walt.server.adapters.network.raised import Raised
from walt.server.domain.network.firewall import is_interface_name
from walt.server.runtime.process import ProcessRunner

_log = Logger()

LATE_INTERFACE = 10.0  # seconds given once to a raw device that is not there yet


def new_mac(source: random.Random) -> str:
    """Return a MAC of the range used by virtual devices; its fourth byte is at most 0x7f."""
    tail = (source.randrange(0x80), source.randrange(0x100), source.randrange(0x100))
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in tail)


async def show_links(runner: ProcessRunner) -> dict[str, dict[str, Any]]:
    """Return what `ip -json -details address show` tells, by name and alternative name.

    /sys/class/net is no substitute: it goes on showing the host's interfaces.
    """
    shown = await runner.run(["ip", "-json", "-details", "address", "show"])
    found: dict[str, dict[str, Any]] = {}
    for link in json.loads(shown.stdout or b"[]"):
        if link:
            for name in (link["ifname"], *link.get("altnames", ())):
                found[name] = link
    return found


async def run_batch(runner: ProcessRunner, lines: Sequence[str]) -> None:
    """Give commands to `ip`; it stops at the first one that fails (CommandFailed)."""
    if lines:
        text = "".join(f"{line}\n" for line in lines)
        await runner.run(["ip", "-batch", "-"], stdin=text.encode())


def _is_up(link: dict[str, Any]) -> bool:
    return "UP" in link.get("flags", ())


class Links:
    """Set networks up and down.

    `clock` gives callLater; `state` is where MAC and state files live.
    """

    def __init__(
        self, clock: IReactorTime, runner: ProcessRunner, state: Path,
        source: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._state = state
        self._source = source or random.SystemRandom()
        self._raised = Raised(state)

    async def links(self) -> dict[str, dict[str, Any]]:
        """Return the interfaces; see `show_links`."""
        return await show_links(self._runner)

    async def up(self, plan: LinkPlan) -> None:
        """Set one network up.

        Raises Invalid for a plan that cannot work, Unavailable for a raw
        device that is missing, CommandFailed when the kernel refuses.
        """
        plan.check()
        links = await self._with_raw_device(plan)
        self._state.mkdir(parents=True, exist_ok=True)
        if await self._leave_former(plan, links):
            links = await self.links()
        created: list[str] = []
        batch = ["link set dev lo up"]
        if plan.raw_device is None:
            created.append(plan.base)
            if plan.base not in links:
                await self._add_dummy(plan)
        else:
            if not _is_up(links[plan.raw_device]):
                self._raised.add(plan.raw_device)
            batch.append(f"link set dev {plan.raw_device} up")
            if plan.vlan is not None:
                created.append(plan.base)
                if plan.base not in links:
                    batch.append(
                        f"link add link {plan.raw_device} name {plan.base} "
                        f"type vlan id {plan.vlan}"
                    )
        batch.append(f"link set dev {plan.base} up")
        if plan.name == BRIDGE:
            created.append(BRIDGE)
            batch += self._bridge(plan, links)
        elif plan.name not in links:
            batch.append(f"link property add dev {plan.base} altname {plan.name}")
        device = BRIDGE if plan.name == BRIDGE else plan.base
        if isinstance(plan.ip, IPv4Interface):
            batch += self._address(device, plan.ip, links.get(device))
        # Written first: `down` then removes what an `up` cut short has made.
        write_atomic(self._state_file(plan.name), "".join(f"{name}\n" for name in created))
        remember(self._state, plan)
        await self._batch(batch)
        if plan.ip == "dhcp":
            await self._dhcp_client(plan)

    async def down(self, plan: LinkPlan) -> None:
        """Undo `up`: interfaces, alternative name, address and DHCP client of ours.

        A raw device that was down before is down again, unless somebody else uses it meanwhile.
        """
        await self._undo(plan)

    async def _undo(self, plan: LinkPlan, goes_on: str | None = None) -> None:
        """Do what `down` does; the raw device that `goes_on` stays up."""
        plan.check()
        links = await self.links()
        batch = []
        if plan.name != BRIDGE and plan.base in links:
            await self._end_dhcp_client(plan)
            if isinstance(plan.ip, IPv4Interface) and self._has(links[plan.base], plan.ip):
                batch.append(f"address del {plan.ip} dev {plan.base}")
            if plan.name in links[plan.base].get("altnames", ()):
                batch.append(f"link property del dev {plan.base} altname {plan.name}")
        for name in reversed(self._created(plan.name)):
            if name in links:
                batch.append(f"link delete dev {name}")
        batch += self._lowering(plan, links, goes_on)
        await self._batch(batch)
        self._state_file(plan.name).unlink(missing_ok=True)
        forget(self._state, plan.name)

    def no_longer_wanted(self, names: Collection[str]) -> list[LinkPlan]:
        """Return the networks that were set up, and are none of these: they are to go down."""
        return [remembered(self._state, name) or LinkPlan(name)
                for name in known(self._state) if name not in names]

    async def _leave_former(self, plan: LinkPlan, links: dict[str, dict[str, Any]]) -> bool:
        """Undo what the network was made of before server.conf changed; tell if there was any.

        The bridge stays, and what is connected to it.
        """
        former = remembered(self._state, plan.name)
        if plan.name != BRIDGE:
            if former in (None, plan):
                return False
            assert former is not None
            await self._undo(former, plan.raw_device)
            return True
        batch = [
            f"link delete dev {name}" for name in self._created(plan.name)
            if name in links and name not in (BRIDGE, plan.base)
        ]
        if (
            former is not None and former.base == former.raw_device != plan.base
            and links.get(former.base, {}).get("master") == BRIDGE
        ):
            batch.append(f"link set dev {former.base} nomaster")
        if former is not None:
            batch += self._lowering(former, links, plan.raw_device)
        await self._batch(batch)
        return bool(batch)

    def _lowering(
        self, plan: LinkPlan, links: dict[str, dict[str, Any]], goes_on: str | None
    ) -> list[str]:
        """Return what sets the raw device of a network down that goes, if it was down before."""
        device = plan.raw_device
        if device is None or device not in self._raised or device not in links:
            return []
        others = [
            remembered(self._state, name) for name in known(self._state) if name != plan.name
        ]
        wanted = {goes_on} | {other.raw_device for other in others if other is not None}
        if device in wanted:
            return []
        self._raised.drop(device)
        created = self._created(plan.name)
        in_use = [
            link["ifname"] for link in links.values()
            if link.get("link") == device and link["ifname"] not in created
        ] + [
            address["local"] for address in links[device].get("addr_info", ())
            if address.get("family") == "inet" and plan.ip != "dhcp"
            and not (plan.ip is not None and address.get("local") == str(plan.ip.ip))
        ]
        return [] if in_use else [f"link set dev {device} down"]

    async def _batch(self, lines: Sequence[str]) -> None:
        await run_batch(self._runner, lines)

    async def _add_dummy(self, plan: LinkPlan) -> None:
        try:
            await self._batch([f"link add name {plan.base} type dummy"])
        except CommandFailed:
            # A kernel without module dummy: one end of a cable does as well.
            peer = f"{plan.name}-peer"
            await self._batch([
                f"link add name {plan.base} type veth peer name {peer}",
                f"link set dev {peer} up",
            ])

    async def _with_raw_device(self, plan: LinkPlan) -> dict[str, dict[str, Any]]:
        links = await self.links()
        if plan.raw_device is not None and plan.raw_device not in links:
            _log.warn("waiting for interface {device}", device=plan.raw_device)
            await deferLater(self._clock, LATE_INTERFACE, lambda: None)
            links = await self.links()
            if plan.raw_device not in links:
                raise Unavailable(
                    f"network.{plan.name}: there is no interface {plan.raw_device}; "
                    "plug it in or correct 'raw-device' in server.conf"
                )
        return links

    def _bridge(self, plan: LinkPlan, links: dict[str, dict[str, Any]]) -> list[str]:
        mac = self._mac()
        batch = []
        bridge = links.get(BRIDGE)
        if bridge is None:
            batch.append(f"link add name {BRIDGE} type bridge")
        if bridge is None or bridge.get("address") != mac:
            batch.append(f"link set dev {BRIDGE} address {mac}")
        if links.get(plan.base, {}).get("master") != BRIDGE:
            batch.append(f"link set dev {plan.base} master {BRIDGE}")
        batch.append(f"link set dev {BRIDGE} up")
        return batch

    def _mac(self) -> str:
        """Return the MAC that identifies the server: random once, then kept."""
        path = self._state / f".{BRIDGE}.mac"
        try:
            mac = path.read_text().strip()
        except FileNotFoundError:
            mac = ""
        if not is_mac(mac):
            mac = new_mac(self._source)
            write_atomic(path, mac + "\n")
        return mac

    @staticmethod
    def _has(link: dict[str, Any], ip: IPv4Interface) -> bool:
        return any(
            address.get("local") == str(ip.ip) and address.get("prefixlen") == ip.network.prefixlen
            for address in link.get("addr_info", ())
        )

    def _address(
        self, device: str, ip: IPv4Interface, link: dict[str, Any] | None
    ) -> list[str]:
        batch = []
        for address in (link or {}).get("addr_info", ()):
            # A former address of the bridge, after a change of server.conf.
            old = f"{address.get('local')}/{address.get('prefixlen')}"
            if device == BRIDGE and address.get("family") == "inet" and old != str(ip):
                batch.append(f"address del {old} dev {device}")
        if link is None or not self._has(link, ip):
            batch.append(
                f"address add {ip} broadcast {ip.network.broadcast_address} dev {device}"
            )
        return batch

    def _state_file(self, network: str) -> Path:
        return self._state / f".{network}.state"

    def _created(self, network: str) -> list[str]:
        try:
            names = self._state_file(network).read_text().split()
        except FileNotFoundError:
            return []
        return [name for name in names if is_interface_name(name)]

    def _dhcp_files(self, plan: LinkPlan) -> list[str]:
        return [
            "-pf", str(self._state / f".{plan.name}.dhclient.pid"),
            "-lf", str(self._state / f".{plan.name}.dhclient.leases"),
        ]

    async def _dhcp_client(self, plan: LinkPlan) -> None:
        await self._end_dhcp_client(plan)
        await self._runner.run(
            ["dhclient", "-4", "-nw", *self._dhcp_files(plan), plan.base], timeout=90.0
        )

    async def _end_dhcp_client(self, plan: LinkPlan) -> None:
        if plan.ip == "dhcp" and (self._state / f".{plan.name}.dhclient.pid").exists():
            await self._runner.run(
                ["dhclient", "-4", "-r", *self._dhcp_files(plan), plan.base], check=False
            )
