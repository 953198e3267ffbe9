"""TLS on a blocking socket, with the standard library.

The records are decoded outside of the socket (`ssl.MemoryBIO`), and every read
takes all that has arrived: `select` on the descriptor is then right, which it
is not on an `ssl.SSLSocket` that keeps decoded bytes back.
"""

from __future__ import annotations

import select
import socket
import ssl

from walt.client.errors import Failure

_CHUNK = 1 << 18


class TlsSocket:
    """The calls of a socket that sessions and streams make, over TLS."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._raw = raw
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._decoded = bytearray()
        self._ended = False
        self._unsent = b""
        self._handshake()

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._raw.sendall(self._out.read())
                data = self._raw.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError(
                        "the server closed the connection before it was encrypted"
                    ) from None
                self._in.write(data)
            else:
                self._raw.sendall(self._out.read())
                return

    def certificate(self) -> bytes:
        """Return the server's certificate, DER encoded."""
        return self._tls.getpeercert(True) or b""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._raw.fileno()

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._raw.setblocking(flag)

    def settimeout(self, seconds: float | None) -> None:
        """As a socket's."""
        self._raw.settimeout(seconds)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def send(self, data: bytes | bytearray) -> int:
        """Take a piece of the data, once what was taken before has left; return its size."""
        self.flush()
        piece = bytes(data[:_CHUNK])
        self._tls.write(piece)
        try:
            self.flush()
        except BlockingIOError:
            pass  # it leaves with the next call
        return len(piece)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        while data:
            data = data[self.send(data):]
        while self.late:
            select.select([], [self._raw], [])
            self.flush()

    @property
    def late(self) -> bool:
        """Whether encoded bytes wait for the socket to take them."""
        return bool(self._unsent) or self._out.pending > 0

    def flush(self) -> None:
        """Give the socket what it takes. Raises BlockingIOError when it takes no more."""
        while self._unsent or self._out.pending:
            self._unsent = self._unsent or self._out.read()
            self._unsent = self._unsent[self._raw.send(self._unsent):]

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return all that has arrived, whatever the size asked; empty at the end.

        With MSG_PEEK it stays there for the next call. Waits as the socket does.
        """
        while not self._decoded and not self._ended:
            self._decode(self._raw.recv(_CHUNK))
        data = bytes(self._decoded)
        if not flags & socket.MSG_PEEK:
            self._decoded.clear()
        return data

    def _decode(self, data: bytes) -> None:
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        while True:
            try:
                piece = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLEOFError:
                piece = b""
            except ssl.SSLError as error:
                raise ConnectionResetError(explain(error)) from None
            if not piece:
                self._ended = True
                return
            self._decoded += piece


def explain(error: ssl.SSLError) -> str:
    """Return what a failed handshake or record means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not the one expected: {error.verify_message}"
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return (
            f"the server refused the certificate of this machine ({reason}): enrol again, with"
            " the command that `walt advanced add-user` prints on the server"
        )
    return reason


def wrap(raw: socket.socket, context: ssl.SSLContext, name: str) -> TlsSocket:
    """Encrypt a connected socket. Raises Failure."""
    try:
        return TlsSocket(raw, context, name)
    except ssl.SSLError as error:
        raw.close()
        raise Failure(f"no secure connection to {name}: {explain(error)}") from None
    except OSError as error:
        raw.close()
        raise Failure(
            f"no secure connection to {name}: {error.strerror or error}"
        ) from None
