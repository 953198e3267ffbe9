"""What the kernel says of its clock: adjtimex(2), which Python does not have."""

from __future__ import annotations

import ctypes

from walt.server.domain.network_services.timing import ClockState

_LEAPS = {1: 1, 2: 2}  # TIME_INS, TIME_DEL: the last minute of the day has 61 or 59 seconds
_UNSYNC = 0x40  # STA_UNSYNC
_libc = ctypes.CDLL(None, use_errno=True)


class _Timex(ctypes.Structure):
    # linux/timex.h, as far as it is read
    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_state() -> ClockState:
    """Return it; a clock that cannot be asked counts as kept by nobody."""
    found = _Timex()  # modes 0: nothing is changed
    result = _libc.adjtimex(ctypes.byref(found))
    if result < 0 or found.status & _UNSYNC:
        return ClockState(0, None)
    return ClockState(_LEAPS.get(result, 0), found.maxerror / 1e6)
