"""Every port and socket of the server (spec node-protocols §1.4)."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

import walt
from walt.common import ports
from walt.server.adapters.tls.contexts import ServerTls
from walt.server.adapters.vpn.account import ACCOUNT
from walt.server.api.session import Session
from walt.server.assembly.core import Core
from walt.server.assembly.preflight import check_port
from walt.server.assembly.ui import ui_sites
from walt.server.domain.access.interfaces import IPeerAccounts
from walt.server.domain.shares import MAX_SESSIONS, MAX_STREAMS, Shares
from walt.server.runtime.metrics import Metrics
from walt.server.runtime.reactors import IReactor
from walt.server.streams.base import Peer, RequestClass, StreamProtocol
from walt.server.streams.dump import LogDumps
from walt.server.streams.image_archives import LoadImagesRequest, SaveImagesRequest
from walt.server.streams.image_build import BuildRequest
from walt.server.streams.image_shell import (
    ImageCommands,
    ImageShellRequest,
    TarFromImageRequest,
    TarToImageRequest,
)
from walt.server.streams.ingest import LogIngestion
from walt.server.streams.netconsole import Netconsole
from walt.server.streams.node_command import (
    DeviceShellRequest,
    NodeCommandRequest,
    NodeCommands,
    PingRequest,
)
from walt.server.streams.node_console import ConsoleRequest
from walt.server.streams.notify import BootNotifications
from walt.server.streams.registry import requests
from walt.server.streams.tcp_relay import TcpRequest, WebRequest
from walt.server.streams.transfers import TarFromNodeRequest, TarToNodeRequest
from walt.server.wire.connections import Connections
from walt.server.wire.fake_tftp import FakeTftpRequest
from walt.server.wire.first_byte import Choose, SwitchFactory, rpc_wires, stream_wires
from walt.server.wire.legacy import LegacyProtocol
from walt.server.wire.peers import Identity, Origins
from walt.server.wire.policy import refusal, sides, trusted
from walt.server.wire.vpn_devices import DeviceFactory
from walt.server.wire.vpn_image import VpnImageRequest

_log = Logger()

GROUP = "walt"  # whose members may use the unix sockets
# A pipeline of calls is taken by pieces of about 100, which `walt.rpc.intake` serves in slices.
CALLS_AT_ONCE = 16384
BYTES_AT_ONCE = 65536
IDLE = 120.0  # seconds of silence of nodes on the RPC port: they open a connection for a call


class Doors(NamedTuple):
    """What every listener needs to know of its peers (design D7)."""

    origins: Origins
    connections: Connections
    tls: ServerTls
    clock: IReactorTime
    open_to_all: bool
    metrics: Metrics

    def factory(
        self, choose: Choose, read_at_once: int, idle: float | None = None
    ) -> SwitchFactory:
        """Return the factory of a listener."""
        return SwitchFactory(
            choose, self.origins, self.connections, self.tls, self.clock, read_at_once, idle
        )


def rpc_factory(core: Core, doors: Doors, shares: Shares) -> SwitchFactory:
    """Return the factory of the RPC listeners; `shares` limits the sessions of a user."""
    doors.metrics.gauge("walt_sessions", "RPC sessions of users", lambda: shares.total)

    def amp(identity: Identity) -> Session:
        return Session(
            lambda session: core.locators(session, identity),
            sides(identity.origin, doors.open_to_all),
            peer=identity.ip or identity.origin, account=identity.account, bound=identity.bound,
            refusal=refusal(identity.origin), observe=doors.metrics.call,
            shares=shares, clock=doors.clock,
        )

    def legacy(identity: Identity) -> LegacyProtocol:
        allowed = sides(identity.origin, doors.open_to_all)
        return LegacyProtocol(core.old_nodes.apis(allowed, identity.ip), walt.__version__)

    return doors.factory(rpc_wires(amp, legacy), CALLS_AT_ONCE, IDLE)


def stream_table(core: Core) -> dict[str, RequestClass]:
    """Return the requests of the stream listeners, by number and name."""
    base, sessions, operations = core.base, core.nodes.sessions, core.image_life.operations
    registry, logs, reactor = base.registry, base.logs, base.reactor
    commands = NodeCommands(registry, sessions, base.platform, core.nodes.open_sessions)
    in_images = ImageCommands(operations.sessions, sessions)
    return requests({
        "REQ_NEW_INCOMING_LOGS": LogIngestion(registry, logs).request,
        "REQ_DUMP_LOGS": LogDumps(logs, core.issuers).request,
        "REQ_NODE_CMD": partial(NodeCommandRequest, commands),
        "REQ_DEVICE_PING": partial(PingRequest, commands),
        "REQ_TAR_FROM_NODE": partial(TarFromNodeRequest, commands),
        "REQ_TAR_TO_NODE": partial(TarToNodeRequest, commands),
        "REQ_TCP_TO_NODE": partial(TcpRequest, registry, core.nodes.open_sessions, reactor),
        "REQ_FAKE_TFTP_GET": partial(FakeTftpRequest, core.boot_files, registry),
        "REQ_VPN_NODE_IMAGE": VpnImageRequest,
        "REQ_NOTIFY_BOOTUP_STATUS": BootNotifications(
            registry, core.nodes.status, reactor
        ).request,
        "REQ_DEVICE_SHELL": partial(DeviceShellRequest, commands),
        "REQ_DOCKER_PROMPT": partial(ImageShellRequest, in_images),
        "REQ_TAR_FROM_IMAGE": partial(TarFromImageRequest, in_images),
        "REQ_TAR_TO_IMAGE": partial(TarToImageRequest, in_images),
        "REQ_TAR_FOR_IMAGE_BUILD": partial(BuildRequest, operations.builds, sessions),
        "REQ_SAVE_IMAGES": partial(SaveImagesRequest, core.image_life.archives, sessions),
        "REQ_LOAD_IMAGES": partial(LoadImagesRequest, core.image_life.archives),
        "REQ_NODE_CONSOLE": partial(ConsoleRequest, core.nodes.virtual, commands),
        "REQ_WEB": partial(WebRequest, base.config.paths.web_socket, reactor),
    })


def stream_factory(
    core: Core, doors: Doors, table: Mapping[str, RequestClass], shares: Shares
) -> SwitchFactory:
    """Return the factory of the stream listeners; `shares` limits the streams of a user."""
    doors.metrics.gauge("walt_streams", "Client streams of users", lambda: shares.total)

    def stream(identity: Identity) -> StreamProtocol:
        ip = identity.ip if identity.origin == "walt-net" else None
        peer = Peer(
            ip, trusted(identity.origin, doors.open_to_all), identity.account, identity.bound,
            shares, identity.serial,
        )
        return StreamProtocol(table, peer, core.base.reactor)

    return doors.factory(stream_wires(stream), BYTES_AT_ONCE)


class Listeners(Service):
    """Opens every socket, and closes them all."""

    name = "listeners"

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._open: list[Any] = []

    def tcp(self, port: int, factory: Any, address: str = "") -> None:
        """Listen on a TCP port. Raises Unavailable with what to do when it is taken."""
        check_port(address, port, socket.SOCK_STREAM, "the WalT server")
        self._open.append(
            self._reactor.listenTCP(port, factory, interface=address, backlog=1024)
        )

    def udp(self, port: int, protocol: Any, address: str = "") -> None:
        """Listen on a UDP port."""
        check_port(address, port, socket.SOCK_DGRAM, "the WalT server")
        self._open.append(
            self._reactor.listenUDP(port, protocol, interface=address, maxPacketSize=9216)
        )

    def private(self, path: Path, factory: Any, account: str) -> None:
        """Listen on a unix socket of one account (and of root)."""
        path.unlink(missing_ok=True)
        self._open.append(
            self._reactor.listenUNIX(str(path), factory, mode=0o600, backlog=64)
        )
        os.chown(path, pwd.getpwnam(account).pw_uid, -1)

    def unix(self, path: Path, factory: Any) -> None:
        """Listen on a unix socket open to root and to the group walt."""
        path.unlink(missing_ok=True)
        self._open.append(
            self._reactor.listenUNIX(str(path), factory, mode=0o660, backlog=1024)
        )
        try:
            os.chown(path, 0, grp.getgrnam(GROUP).gr_gid)
        except KeyError:
            _log.info(
                "there is no group {group}: only root may use {path}", group=GROUP, path=str(path)
            )

    def adopt(self, listening: socket.socket, factory: Any) -> None:
        """Serve a socket opened elsewhere (in the host's network namespace)."""
        self._open.append(self._reactor.adoptStreamPort(
            listening.fileno(), socket.AF_INET, factory
        ))
        listening.close()

    def stopService(self) -> Deferred[Any]:
        """Accept nothing more; connections end with the process."""
        super().stopService()
        closing, self._open = self._open, []
        return DeferredList([maybeDeferred(port.stopListening) for port in closing])


def open_all(
    listeners: Listeners, core: Core, doors: Doors, site: Any, host_http: socket.socket | None,
    host_ui: socket.socket | None, accounts: IPeerAccounts,
) -> None:
    """Open every socket of the server. Raises Unavailable when a port is taken.

    `host_http` and `host_ui` were opened in the network of the host: for pages of the web port,
    and for those of browsers; `accounts` tells whose these are.
    """
    base, paths = core.base, core.base.config.paths
    sessions, users = Shares(MAX_SESSIONS, "sessions"), Shares(MAX_STREAMS, "streams")
    table = stream_table(core)
    rpc = rpc_factory(core, doors, sessions)
    streams = stream_factory(core, doors, table, users)
    ui, relayed = ui_sites(core, table, sessions, users, doors.metrics, accounts)
    listeners.tcp(ports.RPC, rpc)
    listeners.tcp(ports.STREAMS, streams)
    listeners.tcp(base.config.services.http_port, site)
    listeners.udp(ports.NETCONSOLE, Netconsole(base.registry, base.logs, base.reactor))
    listeners.unix(paths.stream_socket, streams)
    listeners.unix(paths.rpc_socket, rpc)
    if base.config.vpn.enabled:
        tunnels = core.vpn.tunnels
        doors.metrics.gauge("walt_vpn_tunnels", "Tunnels of VPN nodes", lambda: len(tunnels))
        listeners.private(
            paths.vpn_socket, DeviceFactory(tunnels, core.vpn.taps, base.reactor), ACCOUNT
        )
    listeners.private(paths.web_socket, relayed, "root")
    for opened, factory in ((host_http, site), (host_ui, ui)):
        if opened is not None:
            listeners.adopt(opened, factory)
