"""The time that nodes take from the server: values of ptpd, messages of NTP (spec server §1.2)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

NTP_PORT = 123
# RFC 5905 §7.3: leap, version and mode; stratum; poll; precision; root delay and dispersion;
# reference id; reference, origin, receive and transmit timestamps.
_HEADER = struct.Struct("!BBbbII4sQQQQ")
_CLIENT, _SERVER = 3, 4  # modes
_VERSIONS = range(1, 5)
# The clock of this machine is what the platform goes by, whether somebody keeps it right or not:
# above those who know better, below those that clients refuse.
_STRATUM, _REFERENCE = 10, b"LOCL"
_PRECISION = -20  # microseconds
_EPOCH = 2208988800  # seconds from 1900 to 1970
_UNKNOWN = 16.0  # seconds of dispersion of a clock that nobody keeps (RFC 5905, MAXDISP)


class PtpConfig(NamedTuple):
    """The interface whose nodes follow the clock of the server, and where ptpd tells its state."""

    interface: str
    status: Path


def render_ptpd(config: PtpConfig) -> str:
    """Return the configuration of ptpd, which never changes a clock: it is a master alone."""
    return "".join(f"{line}\n" for line in (
        f"ptpengine:interface={config.interface}",
        "ptpengine:preset=masteronly",
        "ptpengine:domain=42",
        "ptpengine:ip_dscp=46",
        "ptpengine:ip_mode=hybrid",
        "ptpengine:log_delayreq_interval=3",
        "ptpengine:log_sync_interval=3",
        "ptpengine:log_announce_interval=3",
        # It waits twice 8 s for another master, in place of six times.
        "ptpengine:announce_receipt_timeout=2",
        "clock:no_adjust=Y",
        "global:cpuaffinity_cpucore=0",
        "global:ignore_lock=Y",
        "global:foreground=Y",
        "global:use_syslog=N",
        "global:log_level=LOG_NOTICE",
        "global:log_status=Y",
        f"global:status_file={config.status}",
        "global:status_update_interval=1",
    ))


class ClockState(NamedTuple):
    """What the kernel says of its clock: leap second (0 to 2) and largest error in seconds.

    The error is None where nobody keeps the clock right.
    """

    leap: int
    error: float | None


def _timestamp(seconds: float) -> int:
    """Return a time since 1970 as NTP writes it: 32 bits of seconds, 32 of fractions."""
    whole = int(seconds // 1)
    return ((whole + _EPOCH) % (1 << 32)) << 32 | int((seconds - whole) * (1 << 32))


def ntp_question(stamp: int) -> bytes:
    """Return what a client asks; `stamp` (64 bits) comes back in the answer."""
    return _HEADER.pack(4 << 3 | _CLIENT, 0, 0, 0, 0, 0, bytes(4), 0, 0, 0, stamp)


def ntp_answer(
    question: bytes, received: float, now: float, clock: ClockState
) -> bytes | None:
    """Return the answer to a datagram, None when it is no question of a client.

    `received` and `now` are epoch seconds. What follows the header of a question (keys, extensions)
    is not read: the answer has none, and is never longer than the question.
    """
    if len(question) < _HEADER.size:
        return None
    first, _, poll, _, _, _, _, _, _, _, origin = _HEADER.unpack_from(question)
    version = first >> 3 & 7
    if first & 7 != _CLIENT or version not in _VERSIONS:
        return None
    dispersion = _UNKNOWN if clock.error is None else min(clock.error, _UNKNOWN)
    return _HEADER.pack(
        clock.leap << 6 | version << 3 | _SERVER, _STRATUM, poll, _PRECISION, 0,
        int(dispersion * (1 << 16)), _REFERENCE, _timestamp(received), origin,
        _timestamp(received), _timestamp(now),
    )


def is_ntp_answer(raw: bytes, stamp: int) -> bool:
    """Tell whether a datagram answers the question with this stamp."""
    if len(raw) < _HEADER.size:
        return False
    first, stratum, *_, origin, _, _ = _HEADER.unpack_from(raw)
    return bool(first & 7 == _SERVER and origin == stamp and 0 < stratum < 16)
