"""What may arrive from the network, handed to the real code: nothing may escape.

A target takes any bytes. An exception, a logged failure, memory kept for a
peer that is gone, or an input that keeps the processor busy is a bug.
"""

from __future__ import annotations

import asyncio
import base64
import faulthandler
import io
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pysnmp.carrier.asyncio.dgram.udp import UdpAsyncioTransport
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.fakes.transports import TcpTransport
from tests.fakes.vpn import FakeVpnTaps
from tests.server.adapters.snmp.agent import INTEGER, RESPONSE, Question, element
from tests.server.domain.vpn.test_tunnels import FakeVpn
from tests.server.streams.platform import CLIENT, FROM_NODE, NODE, Platform
from walt.common import ampbox, frames, sshkeys
from walt.common.errors import Invalid, WaltError
from walt.common.ethernet import MAX_FRAME, BadFrame, FrameDecoder, encode
from walt.common.image_archives import Reading
from walt.common.literals import parse
from walt.common.texts import load_json
from walt.rpc.commands.devices import RegisterDevice
from walt.server.adapters.dhcpd import probe as dhcpd
from walt.server.adapters.lldp import probe as snmpd
from walt.server.adapters.named import probe as named
from walt.server.adapters.nbdkit import probe as nbdkit
from walt.server.adapters.nfs import probe as nfs
from walt.server.adapters.podman.prepare import load_spec
from walt.server.adapters.postgres import probe as postgres
from walt.server.adapters.snmp.switches import ROOTS
from walt.server.adapters.tftpd import probe as tftpd
from walt.server.api.session import Session
from walt.server.domain.network_services.lease_events import LeaseAssembler
from walt.server.domain.switches.snmp_interfaces import IF_DESCR
from walt.server.domain.switches.survey import Survey, survey
from walt.server.domain.switches.tables import Answers, Oid, Value
from walt.server.domain.switches.topology import merge
from walt.server.domain.switches.tree import tree
from walt.server.domain.vpn.tunnels import Tunnels
from walt.server.runtime.watching import NoAnswer
from walt.server.streams.base import Peer
from walt.server.streams.netconsole import Netconsole
from walt.server.tools.doctor.dhcp import read_offer
from walt.server.wire.legacy import LegacyProtocol
from walt.server.wire.pickled import MORE, Reader
from walt.server.wire.vpn_devices import DeviceProtocol
from walt.server.workers import snmp
from walt.server.workers.build_context import unpack
from walt.server.workers.snmp_rows import Room, Rows, TooMuch
from walt.vpn.certificate import facts

TURNS = 60
UDP = (1, 3, 6, 1, 6, 1, 1)  # snmpUDPDomain (RFC 3417)
LIMIT = 10.0  # seconds of processor time for one input
_failures: list[Any] = []


def _watch(event: Any) -> None:
    if "log_failure" in event:
        _failures.append(event["log_failure"])


def _checked(protocol: Protocol, data: bytes) -> None:
    """Send bytes in two segments, then leave."""
    transport = TcpTransport()
    protocol.makeConnection(transport)
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        if piece and not (transport.aborted or transport.disconnecting):
            protocol.dataReceived(piece)
    protocol.connectionLost(Failure(ConnectionDone()))


class _Api:
    """Answers as NSAPI and VSAPI do, and as the API of AMP."""

    async def sync_clock(self) -> int:
        return 1

    async def register_device(
        self, vci: Any, uci: Any, ip: Any, mac: Any, name: Any = None
    ) -> None:
        if not isinstance(mac, str):
            raise Invalid("expected a MAC address")

    @RegisterDevice.responder
    async def register(self, **values: Any) -> dict[str, Any]:
        return {}


def legacy(data: bytes) -> None:
    """Line and pickle mode, after a proper greeting and without one."""
    api = _Api()
    apis: Any = {
        "NSAPI": {"sync_clock": api.sync_clock},
        "VSAPI": {"register_device": api.register_device},
    }
    for greeting in (b"", b"10\nVSAPI\n", b"10\nVSAPI\n('SET_MODE', 'pickle4')\n"):
        _checked(LegacyProtocol(apis, "11.0"), greeting + data)


def unpickled(data: bytes) -> Any:
    """Return the first pickle, which comes in two pieces."""
    reader = Reader()
    for piece in (data[:len(data) // 2], data[len(data) // 2:]):
        reader.add(piece)
        value = reader.take()
        if value is not MORE:
            return value
    return None


def values(data: bytes) -> None:
    """One literal, one pickle, one JSON text: what is read can be shown."""
    decoders: tuple[Callable[[bytes], Any], ...] = (parse, unpickled, load_json)
    for decode in decoders:
        try:
            value = decode(data)
        except (Invalid, ValueError):
            continue
        if len(repr(value)) > 100 * len(data) + 1000:
            raise AssertionError("a small message became a large value")


def specs(data: bytes) -> None:
    """The image.spec of an image."""
    try:
        spec = load_spec(data)
    except ValueError:
        return
    if len(repr(spec)) > 100 * len(data) + 1000:
        raise AssertionError("a small file became a large value")


def archives(data: bytes) -> None:
    """An archive of a client, in a worker."""
    with TemporaryDirectory(prefix="walt-fuzz-") as place:
        archive = Path(place) / "archive"
        archive.write_bytes(data)
        try:
            unpack({"archive": str(archive), "directory": f"{place}/tree"}, lambda text: None)
        except WaltError:
            pass


def images(data: bytes) -> None:
    """An archive of images, in a worker and in a client."""
    for heads in (False, True):
        try:
            Reading().all(io.BytesIO(data), heads=heads)
        except WaltError:
            pass


def amp(data: bytes) -> None:
    """Boxes for a session of the server's machine."""
    api: Any = _Api()
    _checked(
        Session(lambda one: [api], frozenset({"cs", "ss"}), peer="fuzz", account="ann"), data
    )


def boxes(data: bytes) -> None:
    """The codecs of the client: boxes and frames of a hostile server."""
    try:
        list(ampbox.Decoder(100_000).feed(data))
    except ampbox.BadBox:
        pass
    try:
        list(frames.Decoder().feed(data))
    except frames.BadFrame:
        pass


def streams(data: bytes) -> None:
    """Requests of a node, of a client and of a stranger."""
    for peer in (FROM_NODE, CLIENT, Peer("10.9.9.9", False)):
        _checked(Platform().protocol(peer), data)


def ingestion(data: bytes) -> None:
    """Log lines, in both time modes."""
    for head in (b"0\nname\nNO_TIMESTAMPS\n", b"REQ_NEW_INCOMING_LOGS\nname\nTIMESTAMPS\n"):
        platform = Platform()
        _checked(platform.protocol(FROM_NODE), head + data)
        platform.clock.advance(1)


def kernel_messages(data: bytes) -> None:
    """Datagrams of a node's kernel, separated by 0xff 0xff."""
    platform = Platform()
    receiver = Netconsole(platform.registry, platform.logs, platform.clock)
    assert NODE.ip is not None
    for datagram in data.split(b"\xff\xff"):
        receiver.datagramReceived(datagram, (NODE.ip, 6666))
    platform.clock.advance(10)


def leases(data: bytes) -> None:
    """Lines of dhcpd, whose hexadecimal fields clients choose."""
    assembler = LeaseAssembler()
    for line in data.decode("utf-8", "replace").split("\n"):
        seen = assembler.feed(line)
        if seen is not None:
            _ = seen.is_news


def answers(data: bytes) -> None:
    """What daemons, or who is in their place, answer to probes."""
    number = int.from_bytes(data[:2], "big")
    dhcpd.is_answer(data, int.from_bytes(data[4:8], "big"))
    read_offer(data, int.from_bytes(data[46:50], "big"))
    named.read_answer(data, number)
    tftpd.read_answer(data)
    snmpd.read_answer(data, int.from_bytes(data[17:21], "big"))
    for read in (nbdkit.read_greeting, nfs.read_reply, postgres.read_answer):
        try:
            read(data)
        except NoAnswer:
            pass


def replies(data: bytes) -> None:
    """Datagrams of SNMP agents: as they come, and as answers to what a walk asks.

    An answer has the number of the request, and then what the input has: a whole PDU without
    its number, or names and values without an error, when its first octet is odd.
    """
    engine = snmp._engine()
    with suppress(Exception):  # which asyncio logs, and goes on
        engine.message_dispatcher.receive_message(engine, UDP, ("127.0.0.1", 161), data)
    _Agent.says = data

    async def work() -> None:
        target = {"host": "127.0.0.1", "port": 161, "version": 2, "community": "lab"}
        there = await _Agent.create(("127.0.0.1", 161), timeout=1, retries=0)
        switch = snmp.Switch(target, there, 25, Rows(Room(0)))
        walking = asyncio.ensure_future(switch.walk(IF_DESCR))
        for _ in range(TURNS):  # of the loop: an answer that is none would take a second
            if walking.done():
                break
            await asyncio.sleep(0)
        walking.cancel()
        with suppress(asyncio.CancelledError, snmp._Stopped, TimeoutError, TooMuch):
            await walking
        survey(Answers(switch.rows.values))

    loop = snmp._loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.run_until_complete(work())


class _Wire(UdpAsyncioTransport):
    """A socket at whose other end `_Agent.says` answers."""

    def open_client_mode(self, *arguments: Any, **options: Any) -> _Wire:
        return self

    def send_message(self, outgoingMessage: bytes, transportAddress: Any) -> None:
        question, says = Question.read(outgoingMessage), _Agent.says
        number = element(INTEGER, question.id.to_bytes(4, "big"))
        if says[:1] and says[0] & 1:
            zero = element(INTEGER, b"\0")
            says = number + zero + zero + element(0x30, says[1:])
        else:
            says = number + says[1:]
        datagram = element(0x30, question.head + element(RESPONSE, says))
        self.datagram_received(datagram, transportAddress)


class _Agent(snmp.UdpTransportTarget):
    TRANSPORT_DOMAIN = (*UDP, 99)
    PROTO_TRANSPORT = _Wire
    says = b""


def tables(data: bytes) -> None:
    """Rows of a switch, of any table, index, type and value: rules, pipe, links, tree."""
    told = survey(Answers(_rows(data)), [NODE.mac])
    words = json.loads(json.dumps(told.words()))
    if Survey.of_words(words) != told:
        raise AssertionError("a survey is another one at the end of the pipe")
    switch, kinds = "02:00:00:00:0a:01", {NODE.mac: "node", "02:00:00:00:0a:01": "switch"}
    links = merge({switch: told}, {}, kinds, [], 1.0)
    tree(links, kinds, switch, show_all=True)
    for number in told.ports:
        told.numbers(number)
        told.power_of(number)
    told.named("g1")


def _rows(data: bytes) -> dict[Oid, Value]:
    """Read rows: table, length and numbers of the index, length and octets of the value."""
    found: dict[Oid, Value] = {}
    at = 0
    while at + 3 <= len(data):
        table, kind = ROOTS[data[at] % len(ROOTS)], data[at + 1]
        size = data[at + 2] & 15
        index = data[at + 3:at + 3 + size]
        at += 3 + size
        length = data[at] if at < len(data) else 0
        octets = data[at + 1:at + 1 + length]
        at += 1 + length
        value: Value = octets
        if kind % 3 == 1:
            value = int.from_bytes(octets[:8], "big", signed=True)
        elif kind % 3 == 2:
            value = tuple(octets)
        numbers = (2**32 - 1 - one if kind & 64 and one > 250 else one for one in index)
        found[(*table, *numbers)] = value
    return found


def keys(data: bytes) -> None:
    """Public ssh keys of people: two safe words and a comment, or refused."""
    text = data.decode(errors="replace")
    for line in (text, f"ssh-ed25519 {text}", f"ssh-rsa {text}"):
        try:
            key = sshkeys.parse(line)
        except ValueError:
            continue
        assert len(key.text.split(" ")) == 2
        assert len(f"{key.text} {key.comment}".splitlines()) == 1
        assert key.fingerprint.startswith("SHA256:")


def ethernet(data: bytes) -> None:
    """Frames from the far end of a tunnel: each is one, and little is kept."""
    for size in (1, 7, len(data) or 1):
        decoder, found = FrameDecoder(), b""
        with suppress(BadFrame):
            for start in range(0, len(data), size):
                frames = decoder.feed(data[start:start + size])
                found += b"".join(map(encode, frames))
        assert data.startswith(found)
        assert len(decoder) < MAX_FRAME + 2 + size


def certificates(data: bytes) -> None:
    """What sshd says of a session."""
    text = data.decode("latin-1")
    for kind in ("ssh-ed25519", "ecdsa-sha2-nistp384", text[:10]):
        for shown in (text, base64.b64encode(data).decode()):
            with suppress(ValueError):
                facts(f"{kind}-cert-v01@openssh.com", shown)


def vpn_devices(data: bytes) -> None:
    """Greetings of the ends of tunnels; nobody is known."""
    vpn: Any = FakeVpn()
    vpn.refusal = _refused
    tunnels = Tunnels(vpn, lambda text: None)
    for one in (data, b'{"hello": "' + data + b'"}\n'):
        _checked(DeviceProtocol(tunnels, FakeVpnTaps(), Clock()), one)
    assert len(tunnels) == 0


async def _refused(identity: str) -> str:
    return "nobody is known"


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        legacy, values, specs, archives, images, amp, boxes, streams, ingestion, kernel_messages,
        leases, answers, replies, tables, keys, ethernet, certificates, vpn_devices,
    )
}


class TooSlow(BaseException):
    """An input took too long; no target may catch it."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TooSlow after so many seconds of processor time.

    What never comes back from C ends the process later, with a traceback.
    """

    def late(number: int, frame: Any) -> None:
        raise TooSlow(f"more than {seconds:g} s of processor time for one input")

    old = signal.signal(signal.SIGVTALRM, late)
    faulthandler.dump_traceback_later(30 * seconds, exit=True)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGVTALRM, old)


def run(name: str, data: bytes, seconds: float = LIMIT) -> None:
    """Run a target; raise what it raises, what it logged as a failure, or TooSlow."""
    _failures.clear()
    globalLogPublisher.addObserver(_watch)
    try:
        with _limited(seconds):
            TARGETS[name](data)
    finally:
        globalLogPublisher.removeObserver(_watch)
    if _failures:
        raise _failures[0].value
