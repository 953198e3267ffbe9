"""Questions to the daemons, as a node asks them: blocking, each with a limit.

A probe raises NoAnswer with a few words, or OSError.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from walt.server.adapters.named.probe import Soa, query, read_answer
from walt.server.adapters.nfs.probe import NULL_CALL, read_reply
from walt.server.adapters.tftpd.probe import ENOUGH, request
from walt.server.adapters.tftpd.probe import read_answer as read_block
from walt.server.runtime.watching import NoAnswer

PATIENCE = 3.0  # seconds for one answer
SILENCE = f"no answer within {PATIENCE:g} s"
AGAIN = 0.7  # seconds between repetitions of a datagram
LARGEST_PAGE = 64 << 20  # bytes: rows of ten thousands of nodes
NBD_MAGIC = b"NBDMAGICIHAVEOPT"  # of the NBD protocol, fixed newstyle
# PostgreSQL's SSLRequest: its length and number (protocol 3.0); one letter answers.
SSL_REQUEST = struct.pack("!II", 8, 80877103)


def _datagram(address: str, port: int, packet: bytes,
              accept: Callable[[bytes], str | Soa | None], farewell: bytes = b"") -> str | Soa:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                endpoint.sendto(packet, (address, port))
                endpoint.settimeout(max(0.01, min(AGAIN, end - time.monotonic())))
                while True:
                    raw, sender = endpoint.recvfrom(65536)
                    found = accept(raw) if sender[0] == address else None
                    if found is not None:
                        if farewell:
                            endpoint.sendto(farewell, sender)
                        return found
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                raise NoAnswer("nothing listens at its port") from None
    raise NoAnswer(SILENCE)


def _stream(address: str | tuple[str, int], send: bytes,
            accept: Callable[[bytes], bool | None], *, may_close: bool = False) -> None:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(address)
            connection.sendall(send)
            received = b""
            while not accept(received):
                data = connection.recv(4096)
                if not data:
                    if may_close:
                        return
                    raise NoAnswer("it closed the connection")
                received += data
                if len(received) > 65536:
                    raise NoAnswer("an answer without end")
        except ConnectionRefusedError:
            raise NoAnswer("nothing listens at its port") from None
        except FileNotFoundError:
            raise NoAnswer("its socket is not there") from None
        except (ConnectionResetError, BrokenPipeError):
            if may_close:
                return
            raise NoAnswer("it broke the connection") from None
        except TimeoutError:
            raise NoAnswer(SILENCE) from None


def is_silence(error: Exception) -> bool:
    """Tell whether a daemon gave no answer at all."""
    return str(error) == SILENCE


def dns(address: str) -> None:
    """Ask named for the zone of the platform."""
    number = random.getrandbits(16)
    found = _datagram(address, 53, query("walt", number), lambda raw: read_answer(raw, number))
    if isinstance(found, Soa) and found.serial is None:
        raise NoAnswer(f"it does not have the zone walt: {found.refusal()}")


def tftp(address: str, name: str) -> None:
    """Ask in.tftpd for the first block of a file."""
    error = _datagram(address, 69, request(name), read_block, ENOUGH)
    if error:
        raise NoAnswer(f"it does not send {name}: {error}")


def http(address: str, port: int) -> None:
    """Ask the web port for its first page."""

    def accept(raw: bytes) -> bool:
        if b"\r\n" in raw and b" 200 " not in raw.split(b"\r\n")[0]:
            raise NoAnswer(f"it answers {raw.splitlines()[0][:60].decode(errors='replace')}")
        return b"\r\n" in raw

    _stream((address, port), f"GET / HTTP/1.0\r\nHost: {address}\r\n\r\n".encode(), accept)


def page(address: str, port: int, path: str) -> str:
    """Return a page of the web port."""
    connection = HTTPConnection(address, port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(LARGEST_PAGE).decode(errors="replace")
    except HTTPException as error:
        raise NoAnswer(f"no web server: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise NoAnswer(f"it answers {answer.status}")
    return text


def nfs(address: str) -> None:
    """Call the procedure of NFS that does nothing."""
    _stream((address, 2049), NULL_CALL, read_reply)


def nbd(address: str) -> None:
    """Wait for the greeting of nbdkit."""
    _stream((address, 10809), b"", lambda raw: raw.startswith(NBD_MAGIC))


def closes(address: str, port: int) -> None:
    """Say a word that no protocol of ours has: a server that lives hangs up."""
    _stream((address, port), b"DOCTOR\n\n", lambda raw: len(raw) > 0, may_close=True)


def database(path: str) -> None:
    """Ask PostgreSQL whether it encrypts."""
    _stream(path, SSL_REQUEST, lambda raw: raw[:1] in (b"N", b"S"))


def holders(text: str) -> str:
    """Return who listens, from what `ss -Hlnp` printed: programs, each once."""
    names = {part.split('"')[1] for part in text.split("users:((")[1:] if part.count('"') >= 2}
    return ", ".join(sorted(names))
