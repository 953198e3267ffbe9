"""Peers that ask for much and take nothing."""

from __future__ import annotations

import socket
from typing import Any

PATIENCE = 60.0  # seconds


def end_if_idle(transport: Any, patience: float = PATIENCE) -> None:
    """Have the kernel end a TCP connection whose peer takes nothing of what is sent to it.

    Its system may acknowledge that it is still there as long as it likes (tcp(7),
    TCP_USER_TIMEOUT). What is no TCP connection stays as it is.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience * 1000))
