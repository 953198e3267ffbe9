"""Enrolment of boards into the VPN, and the end of their keys (spec node-protocols §9.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import DeferredLock

from walt.common.errors import Busy, Conflict, Denied, Invalid, NotFound
from walt.common.sshkeys import parse
from walt.server.domain.devices.model import Device
from walt.server.domain.devices.registry import DeviceRegistry
from walt.server.domain.events import Source
from walt.server.domain.vpn.interfaces import IHostKeys, INeighbours, IVpnAuthority, IVpnKeys
from walt.server.domain.vpn.model import MODEL, EntryPoints, VpnKey, cert_id_of
from walt.server.runtime.coroutines import unbroken

MOST_WAITING = 16  # enrolments on their way: each runs programs and writes to the database


class VpnNodes:
    """Who may come in through the tunnel.

    `entry_points` is None where the VPN is not configured; `new_mac` makes a random MAC of
    virtual devices; `tell` logs one sentence; `owner` tells whose tunnel has a network device.
    `revoked` tells of each identity whose
    certificates are refused from now on, so that open tunnels end.
    """

    def __init__(
        self, registry: DeviceRegistry, entry_points: EntryPoints | None, keys: IVpnKeys,
        authority: IVpnAuthority, neighbours: INeighbours, host_keys: IHostKeys,
        new_mac: Callable[[], str], tell: Callable[[str], object],
        owner: Callable[[str], str | None],
    ) -> None:
        self._registry = registry
        self.entry_points = entry_points
        self._keys, self._authority = keys, authority
        self._neighbours, self._host_keys = neighbours, host_keys
        self._new_mac, self._tell, self._owner = new_mac, tell, owner
        self._lock = DeferredLock()
        self._waiting = 0
        self.revoked: Source[str] = Source()

    async def prepare(self) -> str:
        """Make the authority, and refuse what was revoked; return the authority's public key.

        What the database says counts: a key that a backup brought back is refused again.
        """
        public = await self._authority.prepare()
        await self._authority.refuse(await self._revoked_ids())
        return public

    async def _revoked_ids(self) -> set[str]:
        return {key.cert_id for key in await self._keys.load() if key.revoked}

    # -- what boards ask ---------------------------------------------------

    def board(self, ip: str) -> Device:
        """Return the board of an address. Raises Denied for whoever else has it."""
        device = self._registry.by_ip(ip)
        if (
            device is None or not device.is_node or device.virtual or device.model != MODEL
            or not device.in_network(self._registry.subnet)
        ):
            raise Denied(
                f"{ip} is not the address of a node of model {MODEL} in walt-net: only those"
                " can enrol"
            )
        return device

    def vpn_mac(self, ip: str) -> str:
        """Return the MAC that a board has in the VPN, nothing if it is not enrolled.

        Raises Denied.
        """
        return self.board(ip).vpn_mac or ""

    async def certificate(self, ip: str) -> str:
        """Return the certificate of a board, nothing if it is not enrolled. Raises Denied."""
        mac = self.board(ip).vpn_mac
        found = [key for key in await self._keys.load() if key.vpn_mac == mac]
        return found[0].certificate if found else ""

    async def host_keys(self) -> str:
        """Return what makes boards know the ssh entry point. Raises Invalid, Unavailable."""
        if self.entry_points is None:
            raise Invalid("no ssh entry point is configured: see `vpn` in server.conf")
        return await self._host_keys.of(*self.entry_points.ssh_address)

    async def enrol(self, ip: str, line: str, *, on_behalf: bool = False) -> VpnKey:
        """Sign the key of the board at an address; the first time, give it a MAC of the VPN.

        `on_behalf`: the server's own machine asks for it, so its cable proves nothing.
        Raises Invalid, Denied, Busy, Unavailable.
        """
        if self.entry_points is None:
            raise Invalid("the entry points of the VPN are not configured: see server.conf")
        self.board(ip)
        try:
            key = parse(line)
        except ValueError as error:
            raise Invalid(str(error)) from None
        if self._waiting >= MOST_WAITING:
            raise Busy("too many boards enrol at this moment: try again")
        self._waiting += 1
        try:
            async with self._lock:
                return await self._enrol(ip, key.text, on_behalf)
        finally:
            self._waiting -= 1

    @unbroken
    async def _enrol(self, ip: str, key: str, on_behalf: bool) -> VpnKey:
        way = "root of the server's machine"
        if not on_behalf:
            way = await self._check_cable(ip, self.board(ip))
        board = self.board(ip)
        identity = cert_id_of(board.mac)
        known = await self._keys.load()
        if any(other.revoked for other in known if other.cert_id == identity):
            self._tell(f"{board.name} ({ip}) asked for a certificate, but its key is revoked")
            raise Denied("the key of this board was revoked, and so are all that follow")
        certificate = await self._authority.sign(key, identity)
        board = self.board(ip)  # it may have been forgotten meanwhile
        if cert_id_of(board.mac) != identity:
            raise Conflict("another board has this address now: try again")
        if board.vpn_mac is not None:
            await self._keys.replace_certificate(board.vpn_mac, certificate)
            self._tell(f"VPN node {board.name} got a new certificate {identity}, by {way}")
            return VpnKey(board.vpn_mac, certificate, identity)
        new = VpnKey(self._unused({other.vpn_mac for other in known}), certificate, identity)
        await self._keys.enrol(board.mac, new)
        present = self._registry.get(board.mac)
        if present is None:
            raise NotFound("the board was forgotten meanwhile: boot it again")
        await self._registry.put(replace(present, vpn_mac=new.vpn_mac))
        self._tell(
            f"{present.name} ({ip}) enrolled in the VPN as {identity}, {new.vpn_mac}, by {way}"
        )
        return new

    async def _check_cable(self, ip: str, board: Device) -> str:
        """Raise Denied unless the address answers with a MAC of the board itself.

        Whoever has a tunnel or a virtual node can invent MACs behind it: there, nobody enrols
        but the board whose tunnel it is, once more. Returns the interface.
        """
        found = await self._neighbours.find(ip)
        if found is None or found.mac not in (board.mac, board.vpn_mac):
            mac = "nobody known" if found is None else found.mac
            self._tell(f"{mac} tried to enrol in the VPN as {board.name} ({ip})")
            raise Denied(f"another machine than {board.name} uses the address {ip}")
        if not found.on_cable and (
            board.vpn_mac is None or self._owner(found.interface) != cert_id_of(board.mac)
        ):
            self._tell(
                f"{found.mac} tried to enrol in the VPN as {board.name} ({ip}), but is behind"
                f" {found.interface}, which is no cable"
            )
            raise Denied("boards enrol on a cable of walt-net, or by a tunnel of their own")
        return found.interface

    def _unused(self, taken: set[str]) -> str:
        while True:
            mac = self._new_mac()
            if mac not in taken and self._registry.get(mac) is None:
                return mac

    # -- what administrators ask --------------------------------------------

    async def rows(self) -> list[dict[str, Any]]:
        """Return one row for each key, by identity (spec server §7.4)."""
        owners = {node.vpn_mac: node for node in self._registry.nodes() if node.vpn_mac}
        found = []
        for key in sorted(await self._keys.load(), key=lambda key: (key.cert_id, key.vpn_mac)):
            owner = owners.get(key.vpn_mac)
            found.append({
                "certid": key.cert_id, "revoked": key.revoked, "forgotten_device": owner is None,
                "device_label": key.label or "forgotten device" if owner is None
                else f'node "{owner.name}" mac={owner.mac}',
            })
        return found

    @unbroken
    async def revoke(self, cert_id: str) -> None:
        """Refuse the certificates of an identity, those of the future too.

        Raises NotFound, Conflict (revoked before), CommandFailed, Unavailable.
        """
        async with self._lock:
            known = [key for key in await self._keys.load() if key.cert_id == cert_id]
            if not known:
                raise NotFound("Did not find such VPN key.")
            if all(key.revoked for key in known):
                raise Conflict("This VPN key was already revoked.")
            # The tunnel first: when the database fails, nobody was let in meanwhile.
            await self._authority.refuse({*await self._revoked_ids(), cert_id})
            self.revoked.tell(cert_id)
            await self._keys.revoke(cert_id)
            self._tell(f"the VPN key {cert_id} was revoked")

    async def refusal(self, cert_id: str) -> str | None:
        """Return why a tunnel with such a certificate is not opened, None if it is."""
        known = [key for key in await self._keys.load() if key.cert_id == cert_id]
        if any(key.revoked for key in known):
            return f"the key {cert_id} is revoked"
        if not known:
            return f"the key {cert_id} belongs to no board of this platform"
        return None
