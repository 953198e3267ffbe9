"""Switches of tests: SNMP agents with tables that change, on addresses of a platform."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.server.adapters.snmp import agent
from tests.server.adapters.snmp.agent import Agent, Question, element, identifier, number
from tests.system.live import LivePlatform
from walt.server.adapters.network.namespace import inside
from walt.server.domain.switches import bridge, lldp, numbering, poe, snmp_interfaces
from walt.server.domain.switches.tables import Oid, Value

VLAN = 1
OBEY, REFUSE, IGNORE, LATE, SILENT = "obey", "refuse", "ignore", "late", "silent"


def octets(mac: str) -> bytes:
    """Return an address as tables have it."""
    return bytes.fromhex(mac.replace(":", ""))


class Switch:
    """A switch with ports `g1`, `g2`…, that feeds them; `behave` tells what it does with a SET.

    With LATE a SET takes effect at the third read that follows.
    """

    on, off = poe.TRUE, poe.FALSE

    def __init__(
        self, name: str, mac: str, ports: int = 4, table: Oid = poe.STANDARD
    ) -> None:
        self.mac = mac
        self.table = table  # of power
        self.behave = OBEY
        self.is_silent = False
        self.answers_left: int | None = None  # then it is silent
        self.sets: list[tuple[Oid, int]] = []
        self._waiting: list[tuple[int, Oid, int]] = []
        self._table: dict[Oid, Value] = {
            poe.SYS_OBJECT_ID: (1, 3, 6, 1, 4, 1, 9),
            lldp.SYS_NAME_OF_SELF: name.encode(), (*snmp_interfaces.BASE_ADDRESS, 0): octets(mac),
        }
        for port in range(1, ports + 1):
            own = bytes([6, 0, 0]) + octets(mac)[4:] + bytes([port])
            self.put({
                (*snmp_interfaces.IF_DESCR, port): f"g{port}".encode(),
                (*snmp_interfaces.IF_NAME, port): f"g{port}".encode(),
                (*snmp_interfaces.IF_TYPE, port): snmp_interfaces.ETHERNET,
                (*snmp_interfaces.IF_PHYS_ADDRESS, port): own,
                (*snmp_interfaces.IF_OPER_STATUS, port): 1,
                (*snmp_interfaces.BASE_PORT_IF_INDEX, port): port,
                (*numbering.LOC_PORT_SUBTYPE, port): 5,
                (*numbering.LOC_PORT_ID, port): f"g{port}".encode(),
                self.control(port): self.on,
            })
            self.feeds(port, True)

    def control(self, port: int) -> Oid:
        """Return what switches a port."""
        return (*self.table, poe.ADMIN, 1, port)

    def put(self, rows: Mapping[Oid, Value]) -> None:
        """Add rows."""
        self._table.update(rows)
        self._sorted: list[Oid] = sorted(self._table)

    def is_on(self, port: int) -> bool:
        """Tell whether a port is powered."""
        return self._table[self.control(port)] == self.on

    def feeds(self, port: int, delivers: bool) -> None:
        """Say whether a port delivers power."""
        self.put({(*self.table, poe.DETECTION, 1, port): poe.DELIVERING if delivers else 2})

    def links(self, port: int, status: int) -> None:
        """Say whether a port has a link, as ifOperStatus: 1 up, 2 down."""
        self.put({(*snmp_interfaces.IF_OPER_STATUS, port): status})

    def sees(self, mac: str, port: int) -> None:
        """Learn an address."""
        index = (VLAN, *octets(mac))
        self.put({(*bridge.Q_PORT, *index): port, (*bridge.Q_STATUS, *index): bridge.LEARNED})

    def sees_many(self, count: int, port: int) -> Callable[[], None]:
        """Learn many addresses of devices that nobody knows; return what unlearns them."""
        before, rows = dict(self._table), {}
        for one in range(count):
            index = (VLAN, 2, 9, 9, 0, one >> 8, one & 255)
            rows[(*bridge.Q_PORT, *index)] = port
            rows[(*bridge.Q_STATUS, *index)] = bridge.LEARNED
        self.put(rows)

        def forget() -> None:
            self._table = before
            self.put({})

        return forget

    def forgets(self, mac: str) -> None:
        """Unlearn it."""
        index = (VLAN, *octets(mac))
        for column in (bridge.Q_PORT, bridge.Q_STATUS):
            self._table.pop((*column, *index), None)
        self.put({})

    def hears(
        self, port: int, mac: str, remote: str, name: str = "", ip: str | None = None,
        place: int = 1,
    ) -> None:
        """Have a neighbour by LLDP."""
        index = (0, port, place)
        self.put({
            (*lldp.CHASSIS_SUBTYPE, *index): 4, (*lldp.CHASSIS_ID, *index): octets(mac),
            (*lldp.PORT_SUBTYPE, *index): 5, (*lldp.PORT_ID, *index): remote.encode(),
            (*lldp.SYS_NAME, *index): name.encode(),
        })
        if ip is not None:
            numbers = tuple(map(int, ip.split(".")))
            self.put({(*lldp.MANAGEMENT, 3, *index, 1, 4, *numbers): 2})

    def answer(self, question: Question) -> list[bytes]:
        """Answer as an agent of version 2c does."""
        if self.answers_left is not None:
            self.answers_left -= 1
        if self.is_silent or (self.answers_left is not None and self.answers_left < 0):
            return []
        if question.kind == agent.SET:
            return self._set(question)
        if question.kind == agent.GET:
            self._late()
            value = self._table.get(question.name)
            return [question.answer((
                question.name, b"\x80\x00" if value is None else _encoded(value)
            ))]
        count = max(1, question.repetitions) if question.kind == agent.BULK else 1
        at = bisect_right(self._sorted, question.name)
        names = self._sorted[at:at + count]
        if not names:
            return [question.answer((question.name, bytes([agent.END_OF_MIB, 0])))]
        return [question.answer(*((name, _encoded(self._table[name])) for name in names))]

    def _set(self, question: Question) -> list[bytes]:
        value = int.from_bytes(question.value, "big", signed=True)
        self.sets.append((question.name, value))
        if self.behave == SILENT:
            return []
        if self.behave == REFUSE:
            return [question.answer(status=17)]
        if self.behave == OBEY:
            self._apply(question.name, value)
        elif self.behave == LATE:
            self._waiting.append((3, question.name, value))
        return [question.answer((question.name, number(value)))]

    def _late(self) -> None:
        waiting, self._waiting = self._waiting, []
        for left, name, value in waiting:
            if left > 1:
                self._waiting.append((left - 1, name, value))
            else:
                self._apply(name, value)

    def _apply(self, name: Oid, value: int) -> None:
        port = name[-1]
        self.put({name: value})
        self.feeds(port, value == self.on)


class TplinkSwitch(Switch):
    """One with the table of TP-Link: other values, an index without group."""

    on, off = poe.TPLINK_ON, poe.TPLINK_OFF

    def control(self, port: int) -> Oid:
        """Return what switches a port."""
        return (*poe.TPLINK, poe.TPLINK_STATUS, port)

    def feeds(self, port: int, delivers: bool) -> None:
        """Say whether a port delivers power."""
        self.put({(*poe.TPLINK, poe.TPLINK_POWER, port): poe.TPLINK_DELIVERS if delivers else 0})


def _encoded(value: Value) -> bytes:
    if isinstance(value, int):
        return number(value)
    return element(agent.OCTETS, value) if isinstance(value, bytes) else identifier(value)


async def plug(
    case: Any, platform: LivePlatform, switch: Switch, ip: str, *, register: bool = True
) -> Agent:
    """Let a switch answer at an address of the platform's network; register it as unknown."""
    space = Path("/run/netns") / platform.namespace
    await platform.runner.run(
        ["ip", "-n", platform.namespace, "address", "replace", f"{ip}/32", "dev", "lo"]
    )
    served = Agent(switch.answer)
    with inside(space):
        port = platform.reactor.listenUDP(161, served, ip)
    case.addCleanup(port.stopListening)
    if register:
        await platform.event("commit", "", "", ip, switch.mac, "", "0", "unknown")
    return served


async def explored(platform: LivePlatform, mac: str, *settings: str) -> str:
    """Make an explored switch of an unknown device and return its name."""
    suffix = mac.replace(":", "")[-6:]
    await platform.ok(
        "device", "config", f"unknown-{suffix}", "type=switch", "snmp.version=2",
        "snmp.community=lab", "lldp.explore=true", *settings,
    )
    return f"switch-{suffix}"
