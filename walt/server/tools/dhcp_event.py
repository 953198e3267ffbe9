"""`walt-dhcp-event`: tell the server about a lease (spec node-protocols §2.5).

    walt-dhcp-event commit [--force-name] VCI UCI IP MAC NAME IS_KNOWN DEV_TYPE

Called by dhcpd when systemd runs it, by tests and by people. dhcpd waits for
it: standard library and walt.common only, one exchange on the unix socket.
"""

import os
import re
import socket
import sys
from typing import NamedTuple

from walt.common import ampbox
from walt.common.errors import in_words
from walt.common.leases import Sighting, proposed_name

SOCKET = "/run/walt/rpc.sock"
COMMAND = b"ss.devices.register"
FIELDS = ("mac", "ip", "vci", "uci", "name")  # its arguments
TIMEOUT = 5.0  # seconds; dhcpd answers nobody in the meantime
USAGE = (
    "Usage: walt-dhcp-event commit [--force-name] VCI UCI IP MAC NAME IS_KNOWN DEV_TYPE"
)
_MAC = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")


class Arguments(NamedTuple):
    """What the command line says; `error` is a sentence when it is wrong."""

    wanted: Sighting | None = None
    error: str | None = None


def padded_mac(text: str) -> str | None:
    """Return a MAC in lower case with two digits a byte, None if it is not one."""
    if _MAC.fullmatch(text) is None:
        return None
    return ":".join(f"{int(byte, 16):02x}" for byte in text.split(":"))


def parse(words: list[str]) -> Arguments:
    """Return what to register according to the words of the command line.

    An event of another kind than `commit`, and a device that is known and
    typed, give nothing to register and no error.
    """
    if not words:
        return Arguments(error=USAGE)
    if words[0] != "commit":
        return Arguments()
    force = len(words) > 1 and words[1] == "--force-name"
    rest = words[2:] if force else words[1:]
    if len(rest) != 7:
        return Arguments(error=USAGE)
    vci, uci, ip, mac, name, known, dev_type = rest
    clean = padded_mac(mac)
    if clean is None:
        return Arguments(error=f"{mac!r} is not a MAC address")
    try:
        socket.inet_pton(socket.AF_INET, ip)
    except (OSError, ValueError):
        return Arguments(error=f"{ip!r} is not an IPv4 address")
    if known not in ("0", "1"):
        return Arguments(error=f"IS_KNOWN must be 0 or 1, not {known!r}")
    seen = Sighting(
        clean, ip, vci, uci, proposed_name(name, clean, force), dev_type if known == "1" else None
    )
    return Arguments(seen if seen.is_news else None)


def request(wanted: Sighting) -> bytes:
    """Return the bytes of the AMP command that registers a device."""
    box = {b"_ask": b"1", b"_command": COMMAND}
    for key, value in wanted._asdict().items():
        if key in FIELDS and value is not None:
            # Arguments are bytes to the kernel; what is not UTF-8 crosses as "?".
            text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            box[key.encode()] = text.encode()
    return ampbox.encode(box)


def send(wanted: Sighting, path: str) -> str | None:
    """Register a device through the server's socket; return the error, None when done."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(TIMEOUT)
            peer.connect(path)
            peer.sendall(request(wanted))
            decoder = ampbox.Decoder()
            while True:
                data = peer.recv(65536)
                if not data:
                    return "the server closed the connection without an answer"
                for box in decoder.feed(data):
                    if b"_answer" in box:
                        return None
                    if b"_error" in box:
                        return box.get(b"_error_description", b"").decode(errors="replace")
    except (OSError, ampbox.BadBox) as error:
        return f"cannot reach the WalT server at {path} ({in_words(error)}): is it running?"


def main() -> None:
    """Run the command line: status 0, 1 when the server could not be told, 2 for usage."""
    words = sys.argv[1:]
    arguments = parse(words)
    if arguments.error is not None:
        print(arguments.error, file=sys.stderr)
        raise SystemExit(2)
    if arguments.wanted is None:
        print("walt-dhcp-event: nothing to tell the server")
        return
    error = send(arguments.wanted, os.environ.get("WALT_RPC_SOCKET", SOCKET))
    if error is not None:
        print(f"walt-dhcp-event: {error}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
