"""A server in this process for `walt` processes: real sessions, streams and services on fakes."""

from __future__ import annotations

import os
import pty
import shutil
import struct
import sys
import tempfile
import termios
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import walt
from tests.fakes.boots import FakeBoots
from tests.fakes.images import (
    FakeCatalog,
    FakeContainers,
    FakeDefaults,
    FakeImageUsers,
    FakeStore,
)
from tests.fakes.local_nodes import LocalQuestions, LocalShell
from tests.fakes.log_store import FakeCheckpoints
from tests.fakes.nodes import (
    FakeMachines,
    FakeNodeLink,
    FakePower,
    FakeProvisioning,
    FakeSaving,
)
from tests.fakes.services import FakeForwarder
from tests.fakes.sessions import FakeSession
from tests.fakes.switch_store import FakeSwitchStore
from tests.fakes.switches import FakeSwitches
from tests.fakes.transports import serve
from tests.fakes.user_keys import FakeUserKeys
from tests.fakes.virtual import FakeAddresses, FakeHypervisor
from tests.server.streams.platform import NODE, Platform
from walt.common.errors import Unavailable
from walt.server.api.devices import DevicesApi, SwitchesApi
from walt.server.api.keys import KeysApi
from walt.server.api.logs import LogsApi
from walt.server.api.nodes import (
    NodeFilesApi,
    NodeRecordsApi,
    NodesApi,
    NodeTablesApi,
    PlansApi,
    ReservationsApi,
    VirtualNodesApi,
)
from walt.server.api.server import ClockApi, ServerApi
from walt.server.api.session import Session
from walt.server.domain.devices.model import Device
from walt.server.domain.images.catalog import ImageService
from walt.server.domain.images.files import ImageFiles
from walt.server.domain.images.model import MODELS_LABEL, StoredImage
from walt.server.domain.images.places import Places
from walt.server.domain.images.sessions import ImageSessions
from walt.server.domain.logs.lines import PlatformLog
from walt.server.domain.network.expose import ExposedPorts
from walt.server.domain.nodes.actions import NodeService
from walt.server.domain.nodes.completion import Completion
from walt.server.domain.nodes.configuration import Configuration
from walt.server.domain.nodes.device_views import DeviceViews
from walt.server.domain.nodes.files import NodeFiles
from walt.server.domain.nodes.keys import UserKeys
from walt.server.domain.nodes.monitor import BootMonitor
from walt.server.domain.nodes.plans import Plans
from walt.server.domain.nodes.progress import BootProgress
from walt.server.domain.nodes.reboot import Rebooter
from walt.server.domain.nodes.remote_paths import RemotePaths
from walt.server.domain.nodes.reservations import Reservations
from walt.server.domain.nodes.saving import NodeChanges
from walt.server.domain.nodes.views import NodeViews
from walt.server.domain.platform import Operations
from walt.server.domain.requester import IRequester
from walt.server.domain.switches.exploration import Exploration
from walt.server.domain.switches.power import NO_PLACE, SwitchPower
from walt.server.domain.switches.views import SwitchViews
from walt.server.domain.virtual.machines import RunningMachines, VirtualNodes
from walt.server.runtime.workflow import Workflows
from walt.server.streams.base import Peer, StreamProtocol

reactor: Any = any_reactor
ROOT = Path(walt.__file__).parent.parent
BOBS = Device(
    "52:54:00:00:00:05", "bobs-node", "node", ip="192.168.1.5", virtual=True, model="pc-x86-64",
    image="bob/img:latest",
)
SECOND = Device(
    "52:54:00:00:00:06", "node-2", "node", ip="192.168.1.6", virtual=True, model="pc-x86-64",
    image="alice/img:latest",
)


async def no_device(mac: str, ip: str | None, name: str) -> None:
    """Register nothing: no switch is read here."""


async def no_package(offset: int, size: int) -> tuple[str, int, bytes]:
    """Have no package for clients."""
    raise Unavailable("there is no package here")


class TypedNodes(VirtualNodes):
    """Keeps what is typed on consoles."""

    def __init__(self, *services: Any) -> None:
        super().__init__(*services)
        self.typed: list[tuple[str, bytes]] = []

    def console_input(self, name: str, data: bytes) -> None:
        """Keep it."""
        self.typed.append((name, data))

    def console_used(self, name: str, requester: IRequester) -> None:
        """Tell nobody."""


class Server:
    """Listens on `rpc.sock` and `streams.sock` of a directory of its own."""

    def __init__(self, case: TestCase) -> None:
        self.platform = Platform()
        self.sessions: list[Session] = []
        self.streams: list[StreamProtocol] = []
        self.link, self.power = FakeNodeLink(), FakePower(NO_PLACE)
        self.provisioning = FakeProvisioning()
        self.monitor = BootMonitor(
            self.platform.registry, self.platform.status, self.platform.platform,
            self.platform.clock, lambda device: False,
        )
        self.rebooter = Rebooter(
            Workflows(self.platform.clock), self.platform.status, self.link, self.power,
            FakeMachines(), self.provisioning, self.monitor,
            PlatformLog(self.platform.logs, lambda: None),
        )
        self.reservations = Reservations(self.platform.clock)
        switches, store = FakeSwitches(), FakeSwitchStore()
        self.exploration = Exploration(
            self.platform.registry, switches, store, self.platform.platform,
            self.platform.clock.seconds, no_device,
        )
        self.switch_power = SwitchPower(
            self.platform.registry, self.exploration, switches, store, self.platform.platform,
            self.platform.clock,
        )
        self.network = SwitchViews(
            self.platform.registry, self.exploration, self.switch_power,
            self.platform.clock.seconds,
        )
        self.checkpoints = FakeCheckpoints()
        self.store = FakeStore(*(
            StoredImage(name, "a" * 64, labels={MODELS_LABEL: "pc-x86-64"})
            for name in ("alice/img:latest", "bob/img:latest")
        ))
        self.images = ImageService(self.store, FakeCatalog(), in_use=set)
        self.containers = FakeContainers(self.store)
        Deferred.fromCoroutine(self.images.refresh())
        self.boots = FakeBoots(self.platform.device_store.devices)
        self.progress = BootProgress(
            self.platform.clock, self.platform.registry, self.boots,
            self.platform.status.is_booted, self.images.digest,
        )
        self.nodes = NodeService(
            self.platform.registry, self.images, self.platform.status, self.monitor, self.rebooter,
            self.platform.logs, self.link, self.platform.platform, self.provisioning,
            self.progress, FakeSaving(), self.platform.clock,
        )
        self.virtual = TypedNodes(
            self.platform.registry, self.nodes, self.platform.status, self.monitor, self.images,
            FakeDefaults(self.images), self.provisioning, FakeHypervisor(), FakeAddresses(),
            self.platform.logs, self.platform.platform, self.platform.clock,
            self.images.give_default, Random(0), RunningMachines(),
        )
        self.questions, self.shell = LocalQuestions(reactor), LocalShell(reactor)
        self.keys = UserKeys(
            self.platform.registry, FakeUserKeys(), self.shell, self.platform.status,
            self.platform.platform, lambda: "walt.node ssh-ed25519 AAAA",
        )
        self.directory = tempfile.mkdtemp(prefix="wt", dir="/tmp")
        case.addCleanup(shutil.rmtree, self.directory)
        for device in (BOBS, SECOND):
            Deferred.fromCoroutine(self.platform.registry.put(device))
        for device in (NODE, BOBS, SECOND):
            self.platform.status.booted(device.mac)
        self._listen(case, "rpc.sock", serve(self._session))
        self._listen(case, "streams.sock", serve(self._stream))

    def _listen(self, case: TestCase, name: str, factory: Any) -> None:
        port = reactor.listenUNIX(os.path.join(self.directory, name), factory)
        case.addCleanup(port.stopListening)

    def _stream(self) -> StreamProtocol:
        self.streams.append(self.platform.protocol(Peer(None, True, "alice")))
        return self.streams[-1]

    def _session(self) -> Session:
        platform = self.platform
        files = NodeFiles(self.nodes, self.questions)
        views = NodeViews(
            platform.registry, platform.status, self.power, self.provisioning,
            self.progress, self.reservations, lambda device: False, reactor,
        )
        devices = DeviceViews(
            platform.registry, platform.status.is_booted, self.network.where, "192.168.1.1",
            reactor,
        )
        completion = Completion(
            platform.registry, self.images, Places([]), self.checkpoints,
            RemotePaths(
                platform.registry, self.images, files,
                ImageFiles(self.containers, reactor), reactor,
            ),
            platform.logs.former,
        )
        configuration = Configuration(
            platform.registry, self.nodes, self.monitor, self.images,
            ExposedPorts(FakeForwarder(), lambda line: None), platform.logs, platform.platform,
            1 << 20, 2, platform.clock,
        )
        changes = NodeChanges(
            self.nodes, files, self.shell,
            ImageSessions(self.images, self.containers, FakeImageUsers()),
        )
        now = platform.clock.seconds
        session = Session(
            lambda requester: [
                NodeTablesApi(requester, views),
                NodeRecordsApi(requester, self.nodes, devices, reactor),
                NodesApi(requester, self.nodes), VirtualNodesApi(requester, self.virtual),
                ReservationsApi(
                    requester, platform.registry, self.nodes, self.reservations, self.images
                ),
                NodeFilesApi(requester, files, changes),
                DevicesApi(requester, devices, configuration),
                SwitchesApi(
                    requester, self.exploration, self.switch_power, self.network, platform.clock
                ),
                PlansApi(
                    requester, configuration,
                    Plans(
                        platform.registry, platform.status, self.reservations,
                        platform.open_sessions,
                    ),
                    platform.clock,
                ),
                KeysApi(requester, self.keys),
                LogsApi(requester, platform.logs, platform.issuers, self.checkpoints, now),
                ClockApi(platform.clock, now),
                ServerApi(requester, completion, Operations(list, list), no_package),
            ],
            frozenset({"cs", "ss"}), peer="unix", account="alice",
        )
        self.sessions.append(session)
        return session

    def down(self, device: Device = NODE) -> None:
        """Have a node not booted."""
        self.platform.status.down(device.mac, "test")

    async def program(self, number: int = 0) -> FakeSession:
        """Return a program started on a node, when it is there."""
        await until(lambda: len(self.platform.sessions.made) > number)
        return self.platform.sessions.made[number]


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition holds; the test's own time limit bounds the wait."""
    while not condition():
        await deferLater(reactor, 0.01)


class Walt(ProcessProtocol):
    """One `walt` process, with pipes or with a pseudo-terminal of 24 rows."""

    def __init__(
        self, server: Server | None, *words: str, terminal: bool = False,
        python: tuple[str, ...] = (sys.executable,), shell: str | None = None,
        variables: dict[str, str] | None = None, columns: int = 80,
    ) -> None:
        self.out = b""
        self.err = b""
        self.before: list[Any] = []  # settings of the terminal before the start
        self.left: list[Any] = []  # and after the end, which may come before spawnProcess returns
        self.ended: Deferred[int] = Deferred()
        directory = server.directory if server is not None else "/nonexistent"
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent",
            "WALT_SERVER": f"unix:{directory}/rpc.sock", "WALT_USERNAME": "alice",
            "TERM": "xterm", "LC_ALL": "C.UTF-8", **(variables or {}),
        }
        argv = [*python, "-m", "walt.client.main", *words]
        if shell is not None:
            argv = ["sh", "-c", shell, "sh", *argv]
        self.terminal: tuple[int, int] | None = None
        if terminal:
            master, slave = pty.openpty()
            self.terminal = master, os.dup(slave)  # spawnProcess closes the other
            self.resize(24, columns)
            self.before = self.attributes()
        self.transport: Any = reactor.spawnProcess(
            self, argv[0], argv, environment,
            usePTY=(master, slave, os.ttyname(slave)) if terminal else False,
        )

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the terminal, which tells the process."""
        assert self.terminal is not None
        ioctl(self.terminal[0], termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def attributes(self) -> list[Any]:
        """Return the settings of the terminal (raw mode changes them)."""
        assert self.terminal is not None
        return termios.tcgetattr(self.terminal[1])

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def write(self, data: bytes) -> None:
        """Type, or give input."""
        self.transport.write(data)

    async def shows(self, text: bytes) -> None:
        """Return when the output holds a text."""
        await until(lambda: text in self.out)

    def processExited(self, reason: Failure) -> None:
        if self.terminal is not None:
            self.left = self.attributes()
            os.close(self.terminal[1])  # then all output is read, and the process has ended

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.ended.callback(value.exitCode if value.exitCode is not None else -value.signal)
