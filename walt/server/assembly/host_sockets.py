"""Ports of the host's network for browsers, opened before the server is in another one (D13)."""

from __future__ import annotations

import socket

from twisted.logger import Logger

from walt.server.config.model import ServerConfig

_log = Logger()

LOOPBACK = "127.0.0.1"


def ui_socket(port: int) -> socket.socket | None:
    """Open the port of the loopback where browsers of this machine find the pages; 0: none.

    When it is taken, any other does: links tell which. To be done in the network of the host.
    """
    if port == 0:
        return None
    for number in (port, 0):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, number))
            listening.listen(50)
            listening.setblocking(False)
            return listening
        except OSError as error:
            listening.close()
            _log.warn(
                "port {port} of 127.0.0.1 is not available for web pages: {error}", port=number,
                error=error.strerror,
            )
    return None


def web_socket(config: ServerConfig) -> socket.socket | None:
    """Open the port of the host where the web pages are found, too, if there is one."""
    port = config.services.http_host_port
    if config.namespace is None or port == 0:
        return None
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(50)
    except OSError as error:
        listening.close()
        _log.warn(
            "web pages are not available at 127.0.0.1:{port}: {error}",
            port=port, error=error.strerror,
        )
        return None
    listening.setblocking(False)
    return listening
