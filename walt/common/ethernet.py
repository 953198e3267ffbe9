"""Ethernet frames in a stream of bytes, and the kernel's end of a cable.

Frames stand back to back, each behind its length in two bytes, big endian (spec
node-protocols §9.5). A frame has 1,514 bytes at most, without its checksum (IEEE 802.3 §3.2).
"""

from __future__ import annotations

import fcntl
import os
import struct

MAX_FRAME = 1514
MIN_FRAME = 14  # two addresses and a type
_LENGTH = struct.Struct("!H")
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


class BadFrame(ValueError):
    """The stream is no stream of frames (any more)."""


def encode(frame: bytes) -> bytes:
    """Return the bytes of one frame in the stream. Raises BadFrame for one that cannot be."""
    if not MIN_FRAME <= len(frame) <= MAX_FRAME:
        raise BadFrame(f"a frame of {len(frame)} bytes")
    return _LENGTH.pack(len(frame)) + frame


class FrameDecoder:
    """Takes a stream in pieces of any size; keeps less than one frame."""

    def __init__(self) -> None:
        self._rest = b""

    def __len__(self) -> int:
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that are complete now. Raises BadFrame, after which it is of no use."""
        stream = self._rest + data
        frames, start, end = [], 0, len(stream)
        while end - start >= 2:
            size = (stream[start] << 8) | stream[start + 1]
            if not MIN_FRAME <= size <= MAX_FRAME:
                raise BadFrame(f"a frame of {size} bytes")
            stop = start + 2 + size
            if stop > end:
                break
            frames.append(stream[start + 2:stop])
            start = stop
        self._rest = stream[start:]
        return frames


def open_tap(name: str) -> int:
    """Return a descriptor of a new TAP device, which goes with its last descriptor.

    Raises OSError: without rights, or when the name is taken.
    """
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(tap)
        raise
    return tap
