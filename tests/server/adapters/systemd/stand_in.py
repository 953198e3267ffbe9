"""A message bus of its own, and on it a systemd that has units in memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    new_error,
    new_method_return,
    new_signal,
)
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.patience import patient
from walt.server.adapters.systemd.bus import BUS, SystemBus, leave
from walt.server.adapters.systemd.units import MANAGER, NAME, PROPERTIES, path_of

CONFIGURATION = """\
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""


class Bus:
    """A dbus-daemon with its socket in a directory."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.socket = place / "bus"
        self._configuration = place / "bus.conf"
        self._configuration.write_text(CONFIGURATION.format(socket=self.socket))
        self._daemon: subprocess.Popen[bytes] | None = None

    async def start(self, reactor: Any) -> None:
        """Start it; return when it listens."""
        self.socket.unlink(missing_ok=True)
        self._daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._configuration}", "--nofork", "--nopidfile",
             "--nosyslog"],
            # It wants more open files than rooms of tests give, and says so.
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        limit = reactor.seconds() + patient(20)
        endpoint = UNIXClientEndpoint(reactor, str(self.socket))
        while True:
            # Its socket is there before it listens.
            try:
                found = await endpoint.connect(Factory.forProtocol(Protocol))
            except ConnectError:
                assert reactor.seconds() < limit, "the bus does not start"
                await deferLater(reactor, 0.05)
            else:
                found.transport.abortConnection()
                return

    def stop(self) -> None:
        """End it, as if it had crashed."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None


class _End(SystemBus):
    """The connection of the stand-in."""

    def __init__(self, clock: Any, systemd: Systemd) -> None:
        super().__init__(
            clock, NAME, on_signal=lambda _: None, on_owner=lambda: None, on_lost=lambda: None
        )
        self.systemd = systemd

    def _asked(self, message: Message, member: str) -> None:
        self.systemd.asked(self, message, member)

    def answer(self, message: Message, signature: str | None, values: tuple[Any, ...]) -> None:
        self._send(new_method_return(message, signature, values))

    def refuse(self, message: Message, name: str, words: str) -> None:
        self._send(new_error(message, name, "s", (words,)))

    def tell(self, address: DBusAddress, member: str, signature: str,
             values: tuple[Any, ...]) -> None:
        self._send(new_signal(address, member, signature, values))


class Stranger(SystemBus):
    """Another program of the machine, on the same bus."""

    def __init__(self, clock: Any) -> None:
        super().__init__(
            clock, NAME, on_signal=lambda _: None, on_owner=lambda: None, on_lost=lambda: None
        )

    @classmethod
    async def connect(cls, reactor: Any, socket: Path) -> Stranger:
        """Return one."""
        end = cls(reactor)
        await UNIXClientEndpoint(reactor, str(socket)).connect(Factory.forProtocol(lambda: end))
        await end.is_up(patient(10))
        return end

    async def tell_all(self, address: DBusAddress, member: str, signature: str,
                       values: tuple[Any, ...]) -> None:
        """Send a signal to each connection, which need not have asked for it."""
        (names,) = await self.call(BUS, "ListNames", limit=patient(10))
        for name in names:
            if name.startswith(":"):
                signal = new_signal(address, member, signature, values)
                signal.header.fields[HeaderFields.destination] = name
                self._send(signal)


class Systemd:
    """What answers as org.freedesktop.systemd1 does.

    `outcome` is that of the next jobs, None: they do not end; `before` tells the end of a job
    ahead of the answer to its order; `merged` makes of all orders one job.
    """

    def __init__(self, *units: str) -> None:
        self.states: dict[str, dict[str, Any]] = {one: {} for one in units}
        self.orders: list[tuple[str, str, str]] = []
        self.questions: list[str] = []  # units whose properties were asked for
        self.subscribed = 0
        self.outcome: str | None = "done"
        self.before = False
        self.merged = False
        self.deaf: set[str] = set()  # calls that it does not answer
        self._jobs = 0
        self._pids = 200
        self._end: _End | None = None
        self.broken: dict[str, int] = {}

    async def connect(self, reactor: Any, socket: Path) -> None:
        """Take its name on a bus."""
        end = _End(reactor, self)
        await UNIXClientEndpoint(reactor, str(socket)).connect(Factory.forProtocol(lambda: end))
        await end.is_up(patient(10))
        await end.call(BUS, "RequestName", "su", (NAME, 0), limit=patient(10))
        self._end = end

    def leave(self) -> None:
        """Leave the bus."""
        if self._end is not None:
            leave(self._end)

    def asked(self, end: _End, message: Message, member: str) -> None:
        """Answer a call."""
        if member in self.deaf:
            return
        if member == "Subscribe":
            self.subscribed += 1
            end.answer(message, None, ())
        elif member == "Get":
            self._property(end, message)
        elif member in ("RestartUnit", "ReloadOrRestartUnit", "StopUnit"):
            self._order(end, message, member)
        else:
            end.refuse(message, "org.freedesktop.DBus.Error.UnknownMethod", member)

    def _property(self, end: _End, message: Message) -> None:
        (unit,) = [one for one in self.states
                   if path_of(one) == message.header.fields[HeaderFields.path]]
        state = self.states[unit]
        found = {
            (f"{NAME}.Unit", "ActiveState"): ("s", state.get("active", "inactive")),
            (f"{NAME}.Service", "MainPID"): ("u", state.get("pid", 0)),
            (f"{NAME}.Service", "ExecMainStatus"): ("i", state.get("status", 0)),
            (f"{NAME}.Service", "Result"): ("s", state.get("result", "success")),
        }
        if message.body[1] == "ActiveState":
            self.questions.append(unit)
        end.answer(message, "v", (found[message.body],))

    def _order(self, end: _End, message: Message, member: str) -> None:
        unit, mode = message.body
        self.orders.append((member, unit, mode))
        if unit not in self.states:
            end.refuse(message, f"{NAME}.NoSuchUnit", f"Unit {unit} not found.")
            return
        self._jobs += 0 if self.merged and self._jobs else 1
        job = f"/org/freedesktop/systemd1/job/{self._jobs}"
        if self.before:
            self.end_job(unit)
        end.answer(message, "o", (job,))
        if self.outcome is not None and not self.before:
            self._carry_out(member, unit)
            self.end_job(unit)

    def _carry_out(self, member: str, unit: str) -> None:
        if self.outcome != "done":
            return
        if member == "StopUnit":
            self.states[unit] = {"active": "inactive"}
        elif unit in self.broken:
            self.states[unit] = {
                "active": "failed", "status": self.broken[unit], "result": "exit-code",
            }
        elif member == "RestartUnit" or self.states[unit].get("active") != "active":
            self._pids += 1
            self.states[unit] = {"active": "active", "pid": self._pids}

    def end_job(self, unit: str) -> None:
        """Tell the end of the last job."""
        assert self._end is not None
        job = f"/org/freedesktop/systemd1/job/{self._jobs}"
        self._end.tell(
            MANAGER, "JobRemoved", "uoss", (self._jobs, job, unit, self.outcome or "done")
        )

    def tell(self, address: DBusAddress, member: str, signature: str,
             values: tuple[Any, ...]) -> None:
        """Send a signal to who asked for it."""
        assert self._end is not None
        self._end.tell(address, member, signature, values)

    def change(self, unit: str, **state: Any) -> None:
        """Change the state of a unit, and tell so."""
        self.states[unit] = state
        self.tell(
            DBusAddress(path_of(unit), interface=PROPERTIES), "PropertiesChanged", "sa{sv}as",
            (f"{NAME}.Unit", {"ActiveState": ("s", state["active"])}, []),
        )


def until(reactor: Any, condition: Any) -> Deferred[None]:
    """Fire when a condition is true."""
    async def wait() -> None:
        limit = reactor.seconds() + patient(20)
        while not condition():
            assert reactor.seconds() < limit, "not reached"
            await deferLater(reactor, 0.02)

    return Deferred.fromCoroutine(wait())
