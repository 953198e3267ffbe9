"""SNMP to switches with pysnmp: one engine and one loop of asyncio for the worker's life.

What pysnmp leaves to its callers is done here: that identifiers increase in a walk (an agent
that repeats one would be asked for ever), that a time-out ends the switch and not each table,
that fewer repetitions are asked for when an answer gets too big.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import zlib
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from pyasn1.type.univ import Integer, Null, ObjectIdentifier, OctetString
from pysnmp.carrier.asyncio.dgram.udp import UdpAsyncioTransport
from pysnmp.error import PySnmpError
from pysnmp.hlapi.v3arch.asyncio import (
    USM_AUTH_HMAC96_MD5,
    USM_AUTH_HMAC96_SHA,
    USM_AUTH_HMAC192_SHA256,
    USM_AUTH_HMAC384_SHA512,
    USM_PRIV_CBC56_DES,
    USM_PRIV_CFB128_AES,
    USM_PRIV_CFB256_AES,
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    bulk_cmd,
    get_cmd,
    next_cmd,
    set_cmd,
)
from pysnmp.proto.rfc1902 import Integer32
from pysnmp.proto.rfc1905 import EndOfMibView, NoSuchInstance, NoSuchObject
from pysnmp.proto.secmod.rfc3414.service import SnmpUSMSecurityModel

from walt.common.errors import Unavailable
from walt.server.domain.switches.survey import Survey, survey
from walt.server.domain.switches.tables import Answers, Oid, Value
from walt.server.workers.main import Progress
from walt.server.workers.snmp_rows import (
    MAX_ADDRESSES,
    MAX_ALL_BYTES,
    MAX_SURVEY,
    MAX_TABLE,
    TOO_MANY_ADDRESSES,
    TOO_MANY_PORTS,
    TOO_MUCH,
    Room,
    Rows,
    TooMuch,
)

MEMORY = 512 << 20  # bytes of address space
PATIENCE, RETRIES = 3.0, 2  # seconds for one request, and how often it is sent again
SET_PATIENCE = 20.0  # a SET is sent once: what it does is not known when no answer comes
LIMIT = 120.0  # seconds for one switch
# A switch must give PACE answers and rows in each WINDOW seconds.
WINDOW, PACE = 15.0, 30
EFFECT = 6.0  # seconds for a SET to take effect
REPETITIONS = 25
MAX_DATAGRAM = 16 << 10  # octets: REPETITIONS rows with the longest names and texts
STOPPED = "it stopped answering"
AT_ONCE = 50
SOCKETS = 16
MAX_VLANS = 256

# Error statuses of RFC 3416 §3.
TOO_BIG, NO_SUCH_NAME, GENERIC = 1, 2, 5
STATUSES = {
    2: "has no such object", 3: "takes no such value", 4: "allows only reading", 5: "failed",
    6: "does not allow it", 16: "does not allow it to this community",
    17: "allows no writing of it",
}


AUTHENTICATION = {
    "md5": USM_AUTH_HMAC96_MD5, "sha": USM_AUTH_HMAC96_SHA,
    "sha256": USM_AUTH_HMAC192_SHA256, "sha512": USM_AUTH_HMAC384_SHA512,
}
PRIVACY = {"des": USM_PRIV_CBC56_DES, "aes": USM_PRIV_CFB128_AES, "aes256": USM_PRIV_CFB256_AES}
# What an agent answers to a user that it does not know, or whose keys are others (RFC 3414 §3.2).
_REFUSALS = frozenset((
    "UnknownUserName", "UnknownSecurityName", "WrongDigest", "DecryptionError",
    "UnsupportedSecurityLevel", "AuthenticationFailure", "AuthenticationError",
))
_PREPARATION: Oid = (1, 3, 6, 1)
# Counters of its engine, which pysnmp reads from files when the first answer comes.
_LATE = (
    "__SNMPv2-MIB", "__SNMP-FRAMEWORK-MIB", "__SNMP-MPD-MIB", "__SNMP-TARGET-MIB",
    "__SNMP-USER-BASED-SM-MIB", "__SNMP-VIEW-BASED-ACM-MIB",
)


_libc = ctypes.CDLL(None)


class _Stopped(Exception):
    """Why nothing more is asked of a switch."""


class _Refused(Exception):
    """An error status of RFC 3416."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _engine() -> SnmpEngine:
    return SnmpEngine()


def prepare() -> None:
    """Have pysnmp load what it loads late: for answers, for each kind of privacy, and by one
    question for each version.
    """
    for protocol in PRIVACY.values():
        cipher, key = SnmpUSMSecurityModel.PRIV_SERVICES[protocol], OctetString(bytes(32))
        secret, salt = cipher.encrypt_data(key, (0, 0, None), bytes(8))
        cipher.decrypt_data(key, (0, 0, salt), secret)

    async def work() -> None:
        _engine().get_mib_builder().load_modules(*_LATE)
        for version in (1, 2, 3):
            target: dict[str, Any] = {
                "host": "127.0.0.1", "port": 9, "version": version, "community": "none",
                "user": {
                    "name": "none", "auth": "none none", "priv": "none none",
                    "auth_protocol": "sha256", "priv_protocol": "aes",
                },
            }
            switch = Switch(target, await _transport(target, 0.1, 0), 0, Rows(Room(0)))
            with contextlib.suppress(TimeoutError, _Stopped):
                await switch.walk(_PREPARATION)

    _run(work())


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return _loop().run_until_complete(work)


def plain(value: Any) -> Value | None:
    """Return a value as Python's; None for what marks the absence of one, or is unknown."""
    if isinstance(value, (Null, NoSuchObject, NoSuchInstance, EndOfMibView)):
        return None
    if isinstance(value, Integer):
        return int(value)
    if isinstance(value, OctetString):
        return bytes(value.asOctets())
    return tuple(value) if isinstance(value, ObjectIdentifier) else None


def _identity(target: dict[str, Any]) -> CommunityData | UsmUserData:
    """Return as whom a switch is asked. Texts are UTF-8 (SnmpAdminString, RFC 3411 §5)."""
    user = target.get("user")
    if target["version"] < 3 or user is None:
        return CommunityData(target["community"].encode(), mpModel=min(target["version"], 2) - 1)
    return UsmUserData(
        user["name"].encode(), user["auth"].encode(), user["priv"].encode(),
        authProtocol=AUTHENTICATION[user["auth_protocol"]],
        privProtocol=PRIVACY[user["priv_protocol"]],
    )


class Switch:
    """One switch, asked with one community, or as one user of version 3."""

    def __init__(
        self, target: dict[str, Any], transport: UdpTransportTarget, repetitions: int,
        rows: Rows,
    ) -> None:
        self._auth = _identity(target)
        self._context = ContextData(contextName=target.get("context", "").encode())
        self._transport = transport
        # 0: one after the other, by GETNEXT, which is all that version 1 has.
        self.repetitions = repetitions if target["version"] > 1 else 0
        self.rows = rows

    async def _ask(self, command: Callable[..., Any], *arguments: Any) -> list[tuple[Oid, Any]]:
        """Return the names and values of one answer. Raises TimeoutError, _Refused, _Stopped."""
        try:
            failure, status, _, binds = await command(
                _engine(), self._auth, self._transport, self._context, *arguments, lookupMib=False
            )
        except PySnmpError as error:
            raise _Stopped(f"its answer could not be read ({type(error).__name__})") from None
        if failure is not None:
            if type(failure).__name__ == "RequestTimedOut":
                raise TimeoutError
            if type(failure).__name__ in _REFUSALS:
                raise _Stopped(
                    "it does not accept this user: are snmp.user, its passwords and protocols"
                    f" right? ({failure})"
                )
            raise _Stopped(f"its answer could not be read ({failure})")
        self.rows.answers += 1
        if int(status):
            raise _Refused(int(status))
        return [(tuple(bind[0]), bind[1]) for bind in binds]

    async def get(self, name: Oid) -> Value | None:
        """Return one value, None if the switch has none."""
        try:
            answer = await self._ask(get_cmd, ObjectType(ObjectIdentity(name)))
        except _Refused:
            return None
        return plain(answer[0][1]) if answer and answer[0][0] == name else None

    async def answers(self, name: Oid) -> bool:
        """Tell whether the switch answers this community."""
        try:
            await self.get(name)
        except TimeoutError:
            return False
        return True

    async def _after(self, name: Oid) -> list[tuple[Oid, Any]]:
        """Return some rows after a name, with fewer repetitions when the switch cannot do them."""
        while True:
            bind = ObjectType(ObjectIdentity(name))
            try:
                if self.repetitions:
                    return await self._ask(bulk_cmd, 0, self.repetitions, bind)
                return await self._ask(next_cmd, bind)
            except TimeoutError:
                if not self.repetitions:
                    raise
            except _Refused as refused:
                if refused.status == NO_SUCH_NAME:
                    return []
                if not self.repetitions:
                    return []
            self.repetitions //= 2

    async def walk(self, root: Oid, large: bool = False) -> None:
        """Add the rows below `root`, a forwarding table if it is `large`.

        Raises TimeoutError, TooMuch and _Stopped; what was read stays.
        """
        at, left = root, MAX_ADDRESSES if large else MAX_TABLE
        while answer := await self._after(at):
            for name, value in answer:
                if name[:len(root)] != root:
                    return
                if isinstance(value, EndOfMibView):
                    return
                if name <= at:
                    raise _Stopped("it repeats rows of its tables without end")
                if not left:
                    raise TooMuch(TOO_MANY_ADDRESSES if large else TOO_MANY_PORTS)
                left -= 1
                at = name
                self.rows.add(name, plain(value))

    async def set(self, name: Oid, value: int) -> None:
        """Set a whole number, in one request. Raises as `_ask`."""
        await self._ask(set_cmd, ObjectType(ObjectIdentity(name), Integer32(value)))


class _Transport(UdpAsyncioTransport):
    """Leaves unread what is larger than any answer to what was asked: it would take seconds."""

    def datagram_received(self, datagram: bytes, transport_address: tuple[str, int]) -> None:
        if len(datagram) <= MAX_DATAGRAM:
            super().datagram_received(datagram, transport_address)

    def connection_lost(self, exc: Exception | None) -> None:
        # Of want of memory, say: pysnmp would go on with a socket that is closed. The next job
        # gets another worker.
        if exc is not None:
            os._exit(1)


class _Target(UdpTransportTarget):
    PROTO_TRANSPORT = _Transport

    async def _resolve_address(self, transportAddr: tuple[str, int]) -> tuple[str, int]:
        # There are no names here, and threads to look for them would take the address space.
        return transportAddr


async def _transport(target: dict[str, Any], patience: float, retries: int) -> UdpTransportTarget:
    made = await _Target.create(
        (target["host"], target["port"]), timeout=patience, retries=retries
    )
    # One socket for all would lose answers that arrive together, for want of its memory.
    place = zlib.crc32(f"{target['host']}:{target['port']}".encode()) % SOCKETS
    made.TRANSPORT_DOMAIN = (*UdpTransportTarget.TRANSPORT_DOMAIN, place)
    return made


async def _read(
    target: dict[str, Any], arguments: dict[str, Any], room: Room
) -> tuple[Survey, int]:
    """Ask one switch all tables; return what it told, and the repetitions that it can do."""
    patience, rows = arguments.get("patience", PATIENCE), Rows(room)
    try:
        switch = Switch(
            target, await _transport(target, patience, arguments.get("retries", RETRIES)),
            target.get("repetitions", REPETITIONS), rows,
        )
        failure = await _in_time(switch, target, arguments)
        # The rules are applied here: what a switch tells is large, what it means is not.
        told = survey(Answers(rows.values), arguments.get("known", ()), failure)
        return told, switch.repetitions
    finally:
        rows.close()


async def _in_time(
    switch: Switch, target: dict[str, Any], arguments: dict[str, Any]
) -> str | None:
    """Read the tables as long as it gets on; return why not everything was read, else None."""
    reading = asyncio.ensure_future(_tables(switch, target, arguments))
    window = arguments.get("window", WINDOW)
    end = _loop().time() + arguments.get("limit", LIMIT)
    try:
        while True:
            before = switch.rows.progress
            left = end - _loop().time()
            if left <= 0:
                return "it is too slow: not everything could be read in time"
            await asyncio.wait([reading], timeout=min(window, left))
            if reading.done():
                return reading.result()
            gained = switch.rows.progress - before
            if gained < PACE and left >= window:
                if not gained:
                    return STOPPED
                return f"it is too slow: {gained} answers and rows in {window:g} s"
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def _tables(switch: Switch, target: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    try:
        await switch.get(tuple(arguments["probe"]))
    except TimeoutError:
        return (
            "no answer: is it on, is its address right, does it answer SNMP of this version"
            " with this community?"
        )
    except _Stopped as stopped:
        return str(stopped)
    large = {tuple(root) for root in arguments.get("large", ())}
    try:
        for root in map(tuple, arguments["roots"]):
            await switch.walk(root, root in large)
        await _vlans(switch, target, arguments)
    except TimeoutError:
        return STOPPED
    except (_Stopped, TooMuch) as stopped:
        return str(stopped)
    return None


def _view(target: dict[str, Any], vlan: int) -> dict[str, str]:
    """Return what asks for the tables of a VLAN."""
    if target["version"] == 3:
        return {"context": f"vlan-{vlan}"}
    return {"community": f"{target['community']}@{vlan}"}


async def _vlans(switch: Switch, target: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Add the tables that Cisco's switches have for each VLAN, as `community@VLAN`.

    With version 3 they are contexts, `vlan-VLAN`.

    A switch that does not know a VLAN so is silent; it is asked for all of them at once.
    """
    vlans = arguments["vlans"]
    states = tuple(vlans["states"])
    known = [
        name[-1] for name, state in switch.rows.values.items()
        if name[:len(states)] == states and state == vlans["operational"]
    ]
    has_all = any(
        name[:len(prefix)] == prefix
        for prefix in map(tuple, vlans["unless"]) for name in switch.rows.values
    )
    if has_all or not known:
        return
    transport = await _transport(target, arguments.get("patience", PATIENCE), 0)
    views = [
        Switch({**target, **_view(target, vlan)}, transport, switch.repetitions, switch.rows)
        for vlan in known[:MAX_VLANS]
    ]
    answering = await asyncio.gather(*(view.answers(tuple(arguments["probe"])) for view in views))
    for view, answers in zip(views, answering, strict=True):
        if answers:
            for root in vlans["roots"]:
                await view.walk(tuple(root), True)


def read(arguments: dict[str, Any], progress: Progress) -> None:
    """Walk the tables `roots` of all `targets` at the same time.

    A target has host, port, version, community, user (null below version 3: name, auth, priv,
    auth_protocol, priv_protocol), and repetitions where they are known.
    What each one told is progress, JSON with the `place` of the target, its `survey` and the
    `repetitions` that it could do: nobody waits for the others, here or there. `known` are
    addresses of devices (walt.server.domain.switches.survey). `probe` is an object that is
    asked for first; forwarding tables are `large`; `vlans` says which tables are read again for
    each VLAN.
    """

    async def work() -> None:
        free = asyncio.Semaphore(AT_ONCE)
        limit = int(arguments.get("room", MAX_ALL_BYTES))
        room = Room(limit // AT_ONCE, limit)

        # The engine has one set of keys for the name of a user.
        names = {target["user"]["name"] for target in arguments["targets"] if target.get("user")}
        turns = {name: asyncio.Lock() for name in names}
        keys = {
            name: len({
                json.dumps(target["user"], sort_keys=True) for target in arguments["targets"]
                if target.get("user") and target["user"]["name"] == name
            }) for name in names
        }

        async def one(place: int, target: dict[str, Any]) -> None:
            user: Any = target.get("user")
            alone = user is not None and keys[user["name"]] > 1
            async with turns[user["name"]] if alone else contextlib.nullcontext(), free:
                told, repetitions = await _read(target, arguments, room)
            progress(_words(place, told, repetitions))

        # All are waited for, whatever becomes of one: the next job shall find none of them.
        done = await asyncio.gather(
            *(one(place, target) for place, target in enumerate(arguments["targets"])),
            return_exceptions=True,
        )
        for failure in done:
            if failure is not None:
                raise failure

    _run(work())
    # What was read is gone: the memory is for others while the worker waits.
    gc.collect()
    _libc.malloc_trim(0)


def _words(place: int, told: Survey, repetitions: int) -> str:
    """Return a survey as JSON, without its tables where they are too large for the reactor."""
    text = json.dumps({"place": place, "repetitions": repetitions, "survey": told.words()})
    if len(text) <= MAX_SURVEY:
        return text
    return _words(place, Survey(failure=TOO_MUCH), repetitions)


def put(arguments: dict[str, Any], progress: Progress) -> int | None:
    """Set `name` of `target` to `value` and return what it is then; see ISwitches.set."""
    target, name, value = arguments["target"], tuple(arguments["name"]), arguments["value"]

    rows = Rows(Room(0))

    async def work() -> int | None:
        writer = Switch(target, await _transport(
            target, arguments.get("set_patience", SET_PATIENCE), 0
        ), 0, rows)
        reader = Switch(target, await _transport(
            target, arguments.get("patience", PATIENCE), RETRIES
        ), 0, rows)
        try:
            await writer.set(name, value)
            end = _loop().time() + arguments.get("effect", EFFECT)
            while (now := await reader.get(name)) != value and _loop().time() < end:
                await asyncio.sleep(0.5)
        except TimeoutError:
            raise Unavailable("the switch did not answer") from None
        except _Stopped as stopped:
            raise Unavailable(f"the switch was asked in vain: {stopped}") from None
        except _Refused as refused:
            what = STATUSES.get(refused.status, f"answered with error {refused.status}")
            raise Unavailable(
                f"the switch {what}; does its community allow to write?"
            ) from None
        return now if isinstance(now, int) else None

    found: int | None = _run(work())
    return found
