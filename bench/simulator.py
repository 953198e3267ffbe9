"""Simulated nodes: they get an address by DHCP, answer on 12346, notify on 12347.

They live in a network namespace of their own, on one interface that has all their
addresses and is a port of the platform's bridge.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.system.dhcp_packets import DhcpClient
from tests.system.live import LivePlatform
from walt.common.ports import NODE_SERVICE, STREAMS
from walt.server.adapters.network.namespace import inside

USER_CLASS = 77  # RFC 3004
HOST_NAME = 12
INTERFACE = "sim"
NO_ADDRESS = ("", "0.0.0.0")
MOMENT = 0.05  # seconds between two crowds


@dataclass
class SimulatedNode:
    """One node; `reply` is what it answers to REBOOT (None: it hangs), after `delay` seconds.

    With `cut` it closes the connection in the middle of its reply.
    """

    number: int
    ip: str = ""
    name: str = ""
    reply: str | None = "OK"
    delay: float = 0.0
    cut: bool = False
    boot_time: float = 5.0
    requests: list[str] = field(default_factory=list)
    down: bool = False
    notification: Any = None
    connector: Any = None  # of the notification
    port: Any = None

    @property
    def mac(self) -> str:
        """Its MAC."""
        return f"02:5a:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"


class _Service(Protocol):
    """The network service of a node (spec node-protocols §5.1)."""

    def __init__(self, fleet: Fleet, node: SimulatedNode) -> None:
        self._fleet, self._node, self._data = fleet, node, b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        lines = self._data.split(b"\n")
        if len(lines) < 3:
            return
        request = lines[1].decode()
        self._node.requests.append(request)
        if self._node.reply is not None:
            self._fleet.reactor.callLater(self._node.delay, self._answer, request)

    def _answer(self, request: str) -> None:
        assert self.transport is not None
        reply = f"{self._node.reply}\n".encode()
        self.transport.write(reply[:1] if self._node.cut else reply)
        self.transport.loseConnection()
        if self._node.cut:
            return
        if request == "REBOOT" and self._node.reply == "OK":
            self._fleet.restart(self._node)


class _Notification(Protocol):
    """The permanent connection of a booted node (spec node-protocols §4.9)."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"REQ_NOTIFY_BOOTUP_STATUS\n\n")


class Fleet:
    """Nodes 1 to `count`, on a live platform."""

    def __init__(self, platform: LivePlatform, count: int) -> None:
        self.platform = platform
        self.reactor = platform.reactor
        self.nodes = [SimulatedNode(number) for number in range(1, count + 1)]
        self.namespace = f"sim{os.getpid()}"
        self._stopping = False

    @property
    def path(self) -> Path:
        """The file of the namespace (what DhcpClient asks for)."""
        return Path("/run/netns") / self.namespace

    async def start(self, crowd: int | None = None) -> None:
        """Bring the nodes up: DHCP (which registers them), services, notifications.

        `crowd` nodes connect at once, the others a moment later; None: all do.
        """
        run, ours = self.platform.runner.run, self.platform.namespace
        await run(["ip", "netns", "add", self.namespace])
        for words in (
            ["link", "add", "simport", "type", "veth", "peer", "name", INTERFACE,
             "netns", self.namespace],
            ["link", "set", "simport", "master", "walt-net", "up"],
        ):
            await run(["ip", "-n", ours, *words])
        await run(["ip", "-n", self.namespace, "link", "set", INTERFACE, "up"])
        client = DhcpClient(self.reactor, self, INTERFACE)
        try:
            turns = DeferredSemaphore(50)
            await gatherResults([turns.run(self._lease, client, node) for node in self.nodes])
        finally:
            client.close()
        batch = [
            f"address add {node.ip}/{self.platform.prefix} dev {INTERFACE}\n"
            for node in self.nodes
        ]
        await run(["ip", "-n", self.namespace, "-batch", "-"], stdin="".join(batch).encode())
        for number, node in enumerate(self.nodes, 1):
            self.serve(node)
            self.notify(node)
            if crowd is not None and number % crowd == 0:
                await deferLater(self.reactor, MOMENT, lambda: None)

    def _lease(self, client: DhcpClient, node: SimulatedNode) -> Deferred[None]:
        async def work() -> None:
            while node.ip in NO_ADDRESS:
                _, answer = await client.exchange(
                    node.mac, {USER_CLASS: b"walt.node.pc-x86-64"}
                )
                # A dhcpd that was restarted in the middle refuses (DHCPNAK): ask again.
                node.ip = answer.yiaddr

        return Deferred.fromCoroutine(work())

    def serve(self, node: SimulatedNode) -> None:
        """Listen for requests."""
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: _Service(self, node)  # type: ignore[assignment]
        with inside(self.path):
            node.port = self.reactor.listenTCP(NODE_SERVICE, factory, interface=node.ip)

    def notify(self, node: SimulatedNode) -> None:
        """Open the connection that says: booted."""
        node.down = False
        factory = _NotificationFactory(self, node)
        with inside(self.path):
            self.reactor.connectTCP(
                f"{self.platform.net}.1", STREAMS, factory, bindAddress=(node.ip, 0)
            )

    def restart(self, node: SimulatedNode) -> None:
        """Go down, and notify again after the boot time."""
        node.down = True
        if node.notification is not None:
            node.notification.transport.abortConnection()
        if not self._stopping:
            self.reactor.callLater(node.boot_time, self.notify, node)

    def reconnect(self, node: SimulatedNode) -> None:
        """Notify again soon: the server was away, or did not know the node yet."""
        if not self._stopping:
            self.reactor.callLater(1.0, self.notify, node)

    async def stop(self) -> None:
        """End all of it."""
        self._stopping = True
        for call in self.reactor.getDelayedCalls():
            if getattr(call.func, "__self__", None) is self:
                call.cancel()
        for node in self.nodes:
            if node.port is not None:
                await maybeDeferred(node.port.stopListening)
            if node.connector is not None and node.connector.state == "connecting":
                node.connector.stopConnecting()
            elif node.notification is not None:
                node.notification.transport.abortConnection()
        await self.platform.runner.run(["ip", "netns", "del", self.namespace], check=False)


class _NotificationFactory(Factory):
    noisy = False

    def __init__(self, fleet: Fleet, node: SimulatedNode) -> None:
        self._fleet, self._node = fleet, node

    def buildProtocol(self, address: Any) -> Protocol:
        self._node.notification = protocol = _Notification()
        return protocol

    def startedConnecting(self, connector: Any) -> None:
        """Remember what a fleet that stops has to give up."""
        self._node.connector = connector

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        """Try again, as nodes do."""
        self._fleet.reconnect(self._node)

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        """Unless the node went down itself: connect again, as nodes do."""
        if not self._node.down:
            self._fleet.reconnect(self._node)
