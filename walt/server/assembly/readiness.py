"""systemd's readiness protocol (sd_notify(3)), when NOTIFY_SOCKET is set."""

from __future__ import annotations

import os
import socket

_ADDRESS = os.environ.pop("NOTIFY_SOCKET", None)  # children (podman) must not see it


def notify(state: str) -> None:
    """Tell systemd, if it wants to know; a datagram never blocks."""
    if not _ADDRESS:
        return
    address = "\0" + _ADDRESS[1:] if _ADDRESS.startswith("@") else _ADDRESS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
        try:
            one.sendto(state.encode(), address)
        except OSError:
            return
