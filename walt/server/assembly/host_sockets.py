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
        try:
            return _listening(number)
        except OSError as error:
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
    try:
        return _listening(port)
    except OSError as error:
        _log.warn(
            "web pages are not available at 127.0.0.1:{port}: {error}",
            port=port, error=error.strerror,
        )
        return None


def _listening(port: int) -> socket.socket:
    """Return a socket that listens at a port of the loopback. Raises OSError."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((LOOPBACK, port))
        listening.listen(50)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
