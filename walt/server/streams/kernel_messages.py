"""What kernels put into netconsole datagrams (Linux, Documentation/networking/netconsole).

Plain: text, as printed; a long message comes in several datagrams, only the last of which
ends with a newline. Extended: one message a datagram, `level,number,microseconds,flags;text`,
then lines that begin with a space (names of the device: left out here); the kernel's release
may stand in front, and a long message comes in fragments, each with the same header and
`ncfrag=<offset>/<size>`.
"""

from __future__ import annotations

import re
from collections import OrderedDict

MAX_PARTIAL = 64 * 1024  # bytes kept of one message that is not whole
MAX_FRAGMENTS = 256  # of one message: a kernel makes them of about 1,000 bytes
MAX_MESSAGES = 8  # messages of one kernel that are not whole

_EXTENDED = re.compile(
    rb"(?:[0-9][^\s,;]{0,80},)?[0-9]{1,9},([0-9]{1,20}),([0-9]{1,16}),[-c+](?:,([^;\n]{0,200}))?;"
)
_FRAGMENT = re.compile(rb"(?:^|,)ncfrag=([0-9]{1,6})/([0-9]{1,6})(?:,|$)")


class _Message:
    """An extended message of which some fragments came."""

    def __init__(self, stamp: bytes, size: int) -> None:
        self.stamp = stamp
        self.size = size
        self.parts: dict[int, bytes] = {}

    def add(self, offset: int, data: bytes) -> bool:
        """Keep a fragment; tell whether the message is whole."""
        self.parts[offset] = data
        # The size counts the newline at the end, which may not be sent.
        return self.received >= self.size - 1

    @property
    def received(self) -> int:
        return sum(map(len, self.parts.values()))

    def text(self) -> bytes:
        """Return what is there, with a mark in place of what is not."""
        found, at = [], 0
        for offset, data in sorted(self.parts.items()):
            if offset > at:
                found.append(b"[...]")
            found.append(data)
            at = max(at, offset + len(data))
        if at < self.size - 1:
            found.append(b"[...]")
        return b"".join(found)


class KernelMessages:
    """Puts the datagrams of one kernel together."""

    def __init__(self) -> None:
        self._partial = b""
        self._messages: OrderedDict[bytes, _Message] = OrderedDict()

    def feed(self, datagram: bytes) -> list[bytes]:
        """Return the lines that are complete."""
        head = _EXTENDED.match(datagram)
        if head is None:
            return self._plain(datagram)
        number, stamp, more = head.groups()
        body = datagram[head.end():]
        fragment = _FRAGMENT.search(more or b"")
        if fragment is None:
            return _extended(stamp, body)
        return self._fragment(number, stamp, body, int(fragment[1]), int(fragment[2]))

    @property
    def waiting(self) -> bool:
        """Whether something is kept that is not complete."""
        return bool(self._partial or self._messages)

    def rest(self) -> list[bytes]:
        """Return what is not complete, as lines, and start again."""
        lines = [self._partial] if self._partial else []
        for message in self._messages.values():
            lines += _extended(message.stamp, message.text())
        self._partial = b""
        self._messages.clear()
        return lines

    def _plain(self, datagram: bytes) -> list[bytes]:
        *lines, rest = (self._partial + datagram).split(b"\n")
        if len(rest) > MAX_PARTIAL:
            lines, rest = [*lines, rest], b""
        self._partial = rest
        return lines

    def _fragment(
        self, number: bytes, stamp: bytes, body: bytes, offset: int, size: int
    ) -> list[bytes]:
        if size > MAX_PARTIAL or offset + len(body) > size:
            return _extended(stamp, body)
        message = self._messages.setdefault(number, _Message(stamp, size))
        if message.add(offset, body) or len(message.parts) >= MAX_FRAGMENTS:
            del self._messages[number]
            return _extended(stamp, message.text())
        if len(self._messages) > MAX_MESSAGES:
            _, oldest = self._messages.popitem(last=False)
            return _extended(oldest.stamp, oldest.text())
        return []


def _extended(stamp: bytes, body: bytes) -> list[bytes]:
    """Return the lines of an extended message, with its time as plain messages show it."""
    lines = [line for line in body.split(b"\n") if line and not line.startswith(b" ")]
    seconds, micro = divmod(int(stamp), 1_000_000)
    return [b"[%5d.%06d] %s" % (seconds, micro, line) for line in lines]
