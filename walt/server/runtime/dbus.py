"""One end of a D-Bus connection: messages in and out, calls with a time limit.

Messages are jeepney's; how the two ends greet each other (D-Bus specification, "Authentication
protocol") is a matter of the kinds of ends.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageFlag,
    MessageType,
    new_method_call,
)
from jeepney.low_level import Header, calc_msg_size
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from walt.common.errors import CommandFailed, Unavailable
from walt.server.runtime.coroutines import spawn

_log = Logger()

LONGEST_HANDSHAKE = 4096  # bytes
LARGE = 1 << 16  # bytes of a message that is read in a thread: jeepney takes 0.2 ms for a KiB
START = 16  # bytes of a message that tell how long it is
LONGEST = 1 << 27  # bytes of a message, says the specification: what is longer is none


class Gone(Unavailable):
    """The other end went before it answered."""


class MessageStream(Protocol):
    """What both kinds of ends have in common.

    `clock` gives callLater; `peer` is who is at the other end, in messages. One of more than
    `longest` bytes is passed over, and so is one that cannot be read or is no use to who takes
    it: the messages after it count.
    """

    def __init__(self, clock: IReactorTime, peer: str, longest: int) -> None:
        self._clock, self._peer, self._longest = clock, peer, longest
        self._handshake: bytes | None = b""  # what came of it; None: it is over
        self._buffer = bytearray()
        self._passed_over = 0  # bytes of a message too long that are still to come
        self._reading = False  # in a thread
        self._complained = False
        self._serial = 0
        self._calls: dict[int, Deferred[tuple[Any, ...]]] = {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what was asked."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.errback(Gone("it ended before it answered"))

    def dataReceived(self, data: bytes) -> None:
        """Take the handshake line by line, then messages."""
        if self._handshake is not None:
            data = self._shake_hands(self._handshake + data)
        self._buffer += data
        if not self._reading:
            self._read_all()

    def _read_all(self) -> None:
        while (data := self._next()) is not None:
            if len(data) >= LARGE:
                spawn(self._read_large(data), f"reading a message of {self._peer}")
                return
            self._read(data)

    def _next(self) -> bytes | None:
        """Take the next whole message out of what has come."""
        while True:
            passed = min(self._passed_over, len(self._buffer))
            del self._buffer[:passed]
            self._passed_over -= passed
            if self._passed_over or len(self._buffer) < START:
                return None
            try:
                size = calc_msg_size(bytes(self._buffer[:START]))
            except Exception as error:  # of many kinds, for bytes that are no message
                self._no_message(str(error))
                return None
            if size > LONGEST:
                self._no_message(f"{size} bytes")
                return None
            if size > self._longest:
                self._complain(f"message of {size} bytes")
                self._passed_over = size
            elif len(self._buffer) < size:
                return None
            else:
                data = bytes(self._buffer[:size])
                del self._buffer[:size]
                return data

    def _no_message(self, why: str) -> None:
        self._buffer.clear()
        self._refuse(f"message that cannot be read ({why})")

    def _read(self, data: bytes) -> None:
        try:
            if self._wanted(Header.from_buffer(data)[0]):
                self._received(Message.from_buffer(data))
        except Exception as error:  # of many kinds: of who forms messages so, or of who takes them
            self._complain(f"message without sense ({error!r})")

    async def _read_large(self, data: bytes) -> None:
        transport: Any = self.transport
        self._reading = True
        transport.pauseProducing()
        try:
            if self._wanted(Header.from_buffer(data)[0]):
                self._received(await deferToThread(Message.from_buffer, data))
        except Exception as error:  # as above
            self._complain(f"message without sense ({error!r})")
        self._reading = False
        transport.resumeProducing()
        self._read_all()

    def _wanted(self, header: Header) -> bool:
        """Tell by its header whether a message is to be read at all."""
        return True

    def _complain(self, why: str) -> None:
        """Tell the platform's log, once for a connection: whoever is there may go on for ever."""
        if not self._complained:
            self._complained = True
            _log.warn("D-Bus of {peer}: {why}: passed over", peer=self._peer, why=why[:200])

    def _shake_hands(self, data: bytes) -> bytes:
        """Take the whole lines of the handshake; return what follows it."""
        data = data.lstrip(b"\0")
        while b"\r\n" in data:
            line, data = data.split(b"\r\n", 1)
            if self._greeted(line):
                self._handshake = None
                return data
        if len(data) > LONGEST_HANDSHAKE:
            self._refuse("endless handshake")
            return b""
        self._handshake = data
        return b""

    @abstractmethod
    def _greeted(self, line: bytes) -> bool:
        """Answer a line of the handshake; tell whether it was the last one."""

    def _refuse(self, why: str) -> None:
        _log.warn("D-Bus of {peer}: {why}: refused", peer=self._peer, why=why)
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _send(self, message: Message) -> int:
        self._serial += 1
        self._write(message.serialise(self._serial))
        return self._serial

    def _received(self, message: Message) -> None:
        kind, fields = message.header.message_type, message.header.fields
        if kind is MessageType.method_call:
            if not message.header.flags & MessageFlag.no_reply_expected:
                self._asked(message, str(fields.get(HeaderFields.member, "")))
        elif kind is MessageType.signal:
            self._told(message)
        else:
            waiting = self._calls.pop(int(fields.get(HeaderFields.reply_serial, 0)), None)
            if waiting is None:
                return  # given up before
            if kind is MessageType.method_return:
                waiting.callback(message.body)
            else:
                words = " ".join(str(argument) for argument in message.body)
                name = fields.get(HeaderFields.error_name, "error")
                waiting.errback(CommandFailed(f"{self._peer} refused: {name} {words}".strip()))

    @abstractmethod
    def _asked(self, message: Message, member: str) -> None:
        """Answer a call of the other end."""

    @abstractmethod
    def _told(self, message: Message) -> None:
        """Take a signal."""

    def call(
        self, address: DBusAddress, member: str, signature: str | None = None,
        values: tuple[Any, ...] = (), *, limit: float,
    ) -> Deferred[tuple[Any, ...]]:
        """Call a method of the other end; fires with the values of its answer.

        Fails with CommandFailed (the other end's words), Gone, or Unavailable: it did not
        answer within `limit` seconds.
        """
        serial = self._send(new_method_call(address, member, signature, values))
        answer: Deferred[tuple[Any, ...]] = Deferred(lambda _: self._forget(serial))
        self._calls[serial] = answer

        def late(_: object, seconds: float) -> Failure:
            return Failure(Unavailable(f"no answer to {member} within {seconds:g} s"))

        return answer.addTimeout(limit, self._clock, onTimeoutCancel=late)

    def _forget(self, serial: int) -> None:
        self._calls.pop(serial, None)
