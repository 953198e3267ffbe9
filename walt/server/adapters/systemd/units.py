"""Orders to systemd about the units of our daemons, and what it tells of them.

The interface is org.freedesktop.systemd1.Manager (its page in the manual is
org.freedesktop.systemd1(5)). An order makes a job; the signal JobRemoved tells how that
ended. Root needs no polkit for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message
from twisted.application.service import Service
from twisted.internet.defer import Deferred, FirstError, gatherResults, succeed
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walt.common.errors import CommandFailed, Unavailable, WaltError, in_words
from walt.server.adapters.systemd.bus import SystemBus, leave
from walt.server.runtime.coroutines import spawn
from walt.server.runtime.dbus import Gone
from walt.server.runtime.kept import Kept
from walt.server.runtime.reactors import IReactor
from walt.server.runtime.units import ENDED, JOURNAL, RUNNING, IUnits, UnitState, Unseen
from walt.server.runtime.waiting import Waiters

_log = Logger()

SOCKET = Path("/run/dbus/system_bus_socket")
NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
PROPERTIES = "org.freedesktop.DBus.Properties"
UNIT_PATH = "/org/freedesktop/systemd1/unit/"
CALL_LIMIT = 30.0  # seconds for an answer of systemd or of the bus: at the start of a machine, too
JOB_LIMIT = 60.0  # seconds for what it does: our units start in 30, and end in 20
AGAIN = 2.0  # seconds between attempts to reach the bus
MOST_ENDED = 64  # jobs whose end was told before the answer to the order
_WORDS = {
    "canceled": "another order took its place", "timeout": "it did not end in time",
    "failed": "it failed", "dependency": "a unit that it needs failed",
    "skipped": "it does not apply", "assert": "an assertion of the unit failed",
}
_ASKED = (
    # The state first: one that ends meanwhile tells so, and is asked for again.
    ("Unit", "ActiveState"), ("Service", "MainPID"), ("Service", "ExecMainStatus"),
    ("Service", "Result"),
)
Listener = tuple[Callable[[UnitState], None], Callable[[str], None]]


def path_of(unit: str) -> str:
    """Return the object of a unit: other characters than letters and digits are in hex."""
    name = "".join(
        char if char.isascii() and char.isalnum() else f"_{ord(char):02x}" for char in unit
    )
    return UNIT_PATH + name


@implementer(IUnits)
class SystemdUnits(Service):
    """Talk to systemd by the system bus at `socket`.

    A connection that is lost is made again; orders meanwhile fail with Unavailable. `journal`
    gets the units whose lines are wanted, when it is started. In seconds, an answer may take
    `call_limit`, a job `job_limit`; `again` is between two attempts to reach the bus.
    """

    def __init__(
        self, reactor: IReactor, journal: Callable[[dict[str, Callable[[str], None]]], Kept], *,
        socket: Path = SOCKET, call_limit: float = CALL_LIMIT, job_limit: float = JOB_LIMIT,
        again: float = AGAIN,
    ) -> None:
        self.setName("systemd")
        self._reactor, self._socket = reactor, socket
        self._call_limit, self._job_limit, self._pause = call_limit, job_limit, again
        self._make_journal = journal
        self._journal: Kept | None = None
        self._listeners: dict[str, Listener] = {}
        self._bus: SystemBus | None = None
        self._up: Waiters[bool] = Waiters()
        self._again: IDelayedCall | None = None
        self._jobs: dict[str, Deferred[str]] = {}
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._looking: dict[str, bool] = {}  # units asked for; is it to be asked again?
        self._trouble: str | None = None

    def watch(
        self, unit: str, on_state: Callable[[UnitState], None], on_line: Callable[[str], None]
    ) -> None:
        """See IUnits."""
        self._listeners[unit] = on_state, on_line

    def startService(self) -> None:
        """Connect, and follow what the units write."""
        super().startService()
        self._journal = self._make_journal({
            unit: on_line for unit, (_, on_line) in self._listeners.items()
        })
        self._journal.startService()
        spawn(self._connect(), "connecting to the system bus")

    def stopService(self) -> Deferred[None]:
        """Leave the bus; units stay as they are."""
        super().stopService()
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._bus is not None:
            leave(self._bus)
        return self._journal.stopService() if self._journal is not None else succeed(None)

    # -- the connection -----------------------------------------------------

    async def _connect(self) -> None:
        bus = SystemBus(
            self._reactor, NAME, on_signal=self._signal, on_owner=self._renewed,
            on_lost=self._lost,
        )
        try:
            endpoint = UNIXClientEndpoint(
                self._reactor, str(self._socket), timeout=self._call_limit
            )
            await endpoint.connect(Factory.forProtocol(lambda: bus))
            await bus.is_up(self._call_limit)
            await bus.listen(
                f"type='signal',sender='{NAME}',interface='{MANAGER.interface}'", self._call_limit
            )
            await bus.listen(
                f"type='signal',sender='{NAME}',interface='{PROPERTIES}',"
                f"path_namespace='{UNIT_PATH.rstrip('/')}'", self._call_limit
            )
            await bus.call(MANAGER, "Subscribe", limit=self._call_limit)
        except Exception as error:  # of the kernel, of the bus, of systemd
            self._not_there(f"systemd cannot be asked: {in_words(error)}")
            leave(bus)
            return
        if not self.running:
            leave(bus)
            return
        if self._trouble is not None:
            _log.info("systemd can be asked again")
        self._trouble, self._bus = None, bus
        self._up.release(True)
        self._look_at_all()

    def _renewed(self) -> None:
        """Another process is systemd on the bus now: it does not know that we listen."""
        if self._bus is not None:
            spawn(self._subscribe(self._bus), "asking systemd for its signals")

    async def _subscribe(self, bus: SystemBus) -> None:
        with suppress(WaltError):  # it knows of us, or it is gone again
            await bus.call(MANAGER, "Subscribe", limit=self._call_limit)
        self._look_at_all()

    def _not_there(self, words: str) -> None:
        if words != self._trouble:
            _log.error("{words}", words=words)
        self._trouble = words
        self._up.release(False)
        if self.running and (self._again is None or not self._again.active()):
            self._again = self._reactor.callLater(
                self._pause, lambda: spawn(self._connect(), "connecting to the system bus")
            )

    def _lost(self) -> None:
        if self._bus is None:
            return  # `_connect` tells
        self._bus = None
        if self.running:
            self._not_there("the connection to systemd was lost")
        jobs, self._jobs = self._jobs, {}
        for job in jobs.values():
            job.errback(Unavailable("the connection to systemd was lost"))

    async def _there(self) -> SystemBus:
        if self._bus is None and self.running and self._trouble is None:
            await self._up.wait()  # the first connection is being made
        if self._bus is None:
            raise Unavailable(self._trouble or "systemd is not asked any more")
        return self._bus

    async def _there_again(self) -> SystemBus:
        """Return the connection, or the next one if that is made at the first attempt."""
        if self._bus is None and self.running:
            await self._up.wait()
        return await self._there()

    # -- orders -------------------------------------------------------------

    def restart(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return Deferred.fromCoroutine(self._order("RestartUnit", unit))

    def reload(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return Deferred.fromCoroutine(self._order("ReloadOrRestartUnit", unit))

    def stop(self, unit: str) -> Deferred[UnitState]:
        """See IUnits."""
        return Deferred.fromCoroutine(self._order("StopUnit", unit))

    async def _order(self, member: str, unit: str) -> UnitState:
        if unit not in self._listeners:
            raise ValueError(f"{unit} is no unit of ours")
        bus = await self._there()
        try:
            answer = await bus.call(
                MANAGER, member, "ss", (unit, "replace"), limit=self._call_limit
            )
        except CommandFailed as error:
            if "NoSuchUnit" in str(error):
                raise Unavailable(
                    f"there is no {unit}; run: walt-server-setup, which installs it"
                ) from None
            raise
        except Gone:
            raise
        except Unavailable as error:
            raise self._unseen(unit, error) from None  # it has it, and is busy
        try:
            outcome = await self._outcome(str(answer[0]), unit)
        except Unavailable as error:
            # Its end may have been told while nobody listened. What counts is how the unit is.
            state = await self._seen(unit)
            if state.active in (ENDED if member == "StopUnit" else RUNNING):
                return state
            if state.active not in (*ENDED, *RUNNING):
                raise self._unseen(unit, error) from None  # it is under way, and takes long
            raise
        if outcome != "done":
            # Its state tells the same, and the status of its process.
            raise CommandFailed(
                f"systemd did not do {member} of {unit}: {_WORDS.get(outcome, outcome)};"
                f" see: journalctl --namespace={JOURNAL} --unit={unit}"
            )
        return await self._seen(unit)

    def _outcome(self, job: str, unit: str) -> Deferred[str]:
        """Wait for the end of a job; several orders may have become one."""
        if job in self._ended:
            return succeed(self._ended.pop(job))
        ended: Deferred[str] = Deferred(lambda _: None)
        former = self._jobs.get(job)
        self._jobs[job] = ended
        if former is not None:
            ended.addBoth(_pass_on, former)

        def late(_: object, seconds: float) -> Failure:
            self._jobs.pop(job, None)
            return Failure(Unavailable(f"systemd is not done with {unit} after {seconds:g} s"))

        return ended.addTimeout(self._job_limit, self._reactor, onTimeoutCancel=late)

    async def _seen(self, unit: str) -> UnitState:
        """Return the state of a unit after an order. Raises Unseen: who watches it is told."""
        try:
            return await self._state(await self._there_again(), unit)
        except Unavailable as error:
            raise self._unseen(unit, error) from None

    def _unseen(self, unit: str, error: Unavailable) -> Unseen:
        """Ask for a unit until its state is told; return why an order has no outcome yet."""
        if not isinstance(error, Gone):  # all are asked for when there is a connection again
            self._look(unit)
        return Unseen(f"systemd has an order and has not told how it went: {in_words(error)}")

    async def _state(self, bus: SystemBus, unit: str) -> UnitState:
        address = DBusAddress(path_of(unit), NAME, PROPERTIES)
        # Not GetAll: the properties of a service are hundreds, and some take systemd long.
        asked = [
            bus.call(address, "Get", "ss", (f"{NAME}.{kind}", name), limit=self._call_limit)
            for kind, name in _ASKED
        ]
        try:
            answers = await gatherResults(asked, consumeErrors=True)
        except FirstError as failed:
            failed.subFailure.raiseException()
        active, pid, status, result = (value for ((_, value),) in answers)
        return UnitState(str(active), int(pid) or None, int(status), str(result))

    # -- what it tells ------------------------------------------------------

    def _signal(self, message: Message) -> None:
        fields = message.header.fields
        member, path = fields.get(HeaderFields.member), str(fields.get(HeaderFields.path, ""))
        if member == "JobRemoved" and fields.get(HeaderFields.signature) == "uoss":
            _, job, _, outcome = message.body
            waiting = self._jobs.pop(str(job), None)
            if waiting is not None:
                waiting.callback(str(outcome))
                return
            self._ended[str(job)] = str(outcome)
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)
        elif member == "PropertiesChanged":
            for unit in self._listeners:
                if path == path_of(unit):
                    self._look(unit)

    def _look_at_all(self) -> None:
        for unit in self._listeners:
            self._look(unit)

    def _look(self, unit: str) -> None:
        """Tell who watches a unit of its state; once more where it changed meanwhile."""
        if unit not in self._looking:
            self._looking[unit] = False
            spawn(self._ask_and_tell(unit), f"asking for the state of {unit}")
        else:
            self._looking[unit] = True

    async def _ask_and_tell(self, unit: str) -> None:
        try:
            if self._bus is None:
                return
            state = await self._state(self._bus, unit)
        except WaltError as error:
            _log.warn("{unit}: {words}", unit=unit, words=in_words(error))
            if isinstance(error, Unavailable) and not isinstance(error, Gone):
                self._looking[unit] = True  # it is busy: what it would tell counts all the same
            return
        finally:
            if self._looking.pop(unit):
                self._look(unit)
        on_state, _ = self._listeners[unit]
        on_state(state)


def _pass_on(result: Any, other: Deferred[Any]) -> Any:
    """Give one result to both who wait for a job."""
    if isinstance(result, Failure):
        other.errback(result)
    else:
        other.callback(result)
    return result
