"""What a board boots from in the lab, without the server: by_hand.py watch|serve.

It runs in the box, as root, by the interpreter of the server. `watch` says `booted` whenever a
board notifies the server. `serve` ends the server without its leave: images stay mounted and
exported by the kernel. dhcpd, in.tftpd and named go on with the same configurations; what a board
asks beside them is answered here, in the shortest way.
"""

from __future__ import annotations

import http.server
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import unquote

from walt.server.adapters.dhcpd.daemon import dhcpd_spec
from walt.server.adapters.named.daemon import named_spec

SERVER = "192.168.77.1"
BRIDGE = "walt-net"
STATE = Path("/var/lib/walt")
DROP_IN = Path("/run/systemd/system/walt-server.service.d/bench.conf")
NOTIFICATION, CALLS, WEB = 12347, 12345, 80
REQUEST = b"REQ_NOTIFY_BOOTUP_STATUS"
# For the kernel: frames of TCP over IPv4 without options, to the port of notifications.
FILTER = (
    (0x28, 0, 0, 12), (0x15, 0, 5, 0x0800), (0x30, 0, 0, 23), (0x15, 0, 3, 6),
    (0x28, 0, 0, 36), (0x15, 0, 1, NOTIFICATION), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0),
)
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
ETH_P_ALL = 3


def watch() -> None:
    """Say when a board notifies the server, whichever it is."""
    import ctypes

    program = b"".join(struct.pack("HBBI", *one) for one in FILTER)
    buffer = ctypes.create_string_buffer(program)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as frames:
        frames.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER,
            struct.pack("HL", len(FILTER), ctypes.addressof(buffer)),
        )
        frames.bind((BRIDGE, 0))
        print("watching", flush=True)
        while True:
            if REQUEST in frames.recv(2048):
                print("booted", flush=True)


def end_the_server() -> None:
    """Kill it and its children, and have nobody start it again."""
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text("[Service]\nRestart=no\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "kill", "--signal=KILL", "walt-server"], check=True)
    while subprocess.run(
        ["systemctl", "is-failed", "--quiet", "walt-server"], check=False
    ).returncode:
        time.sleep(0.5)


def start_daemons() -> None:
    """Start them with the configurations that the server gave them."""
    services = STATE / "services"
    for spec in (dhcpd_spec(services / "dhcpd", BRIDGE), named_spec(services / "named")):
        start("setpriv", *spec.credentials, "--", *spec.argv)
    start("in.tftpd", "--foreground", "--listen", "--address", f"{SERVER}:69", "--user", "tftp",
          "--secure", "--map-file", str(services / "tftpd/map"), str(STATE))


def start(*words: str) -> None:
    """Start one of them; what it says is for the journal."""
    subprocess.Popen(["systemd-cat", *words], stdin=subprocess.DEVNULL, cwd="/")


class Files(http.server.BaseHTTPRequestHandler):
    """The boot files of the node that asks."""

    def do_GET(self) -> None:
        node = STATE / "nodes" / self.client_address[0]
        path = unquote(self.path.partition("?")[0])
        under = {"/boot/": node / "tftp", "/pxe/": STATE / "pxe"}
        for prefix, place in under.items():
            if path.startswith(prefix) and (place / path[len(prefix):]).is_file():
                with (place / path[len(prefix):]).open("rb") as stream:
                    self.send_response(200)
                    self.send_header("Content-Length", str(os.fstat(stream.fileno()).st_size))
                    self.end_headers()
                    self.connection.sendfile(stream)
                return
        self.send_error(404)

    def log_message(self, format: str, *words: object) -> None:
        """Nothing is told of requests."""


class Notified(socketserver.StreamRequestHandler):
    """Notifications are accepted, log lines are read."""

    def handle(self) -> None:
        for line in self.rfile:
            if line.strip() == REQUEST:
                self.wfile.write(b"OK\n")


class Calls(socketserver.StreamRequestHandler):
    """Calls of a node get the answers that a server without settings gives."""

    answers: ClassVar = {"netconsole": "False", "report_lldp_neighbor": "None", "user_keys": "''"}
    rfile: BinaryIO

    def handle(self) -> None:
        for number, raw in enumerate(self.rfile, start=1):
            line = raw.decode()
            if number == 2:
                self.wfile.write(b"10.0\n")
            if line.startswith("('CLOSE')"):
                return
            answers = {**self.answers, "sync_clock": f"{time.time()}"}
            for method, answer in answers.items():
                if line.startswith(f"('API_CALL', '{method}'"):
                    self.wfile.write(f"('RESULT', {answer})\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """One port of the server, each connection in a thread."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50


def serve() -> None:
    """Take the server's place."""
    end_the_server()
    start_daemons()
    for port, handler in ((NOTIFICATION, Notified), (CALLS, Calls), (WEB, Files)):
        threading.Thread(target=Server((SERVER, port), handler).serve_forever).start()
    print("serving", flush=True)


if __name__ == "__main__":
    {"watch": watch, "serve": serve}[sys.argv[1]]()
