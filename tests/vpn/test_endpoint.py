"""What the forced command does, as a program of its own; and what certificates say."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system.netns import short_dir
from walt.common.ethernet import encode
from walt.server.adapters.vpn.sshd import endpoint_archive
from walt.server.domain.network_services.tunnel import PYTHON
from walt.vpn.certificate import facts, of_session


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(short_dir(self))
        self.program = self.base / "endpoint.pyz"
        self.program.write_bytes(endpoint_archive())
        self.socket = self.base / "vpn.sock"
        self.auth = self.base / "auth"

    def run_endpoint(
        self, asked: str | None, client: str = "192.168.1.5 50000 22", given: bytes = b""
    ) -> tuple[int, str, str]:
        environment = {"PATH": os.environ["PATH"], "SSH_USER_AUTH": str(self.auth)}
        if asked is not None:
            environment["SSH_ORIGINAL_COMMAND"] = asked
        if client:
            environment["SSH_CLIENT"] = client
        done = subprocess.run(
            [PYTHON, "-I", str(self.program), "--socket", str(self.socket),
             "--subnet", "192.168.1.0/24", "--name", "walt.example.org"],
            env=environment, capture_output=True, input=given, timeout=60, check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()

    def test_same_archive(self) -> None:
        """The same sources make the same program: it is written when it changes."""
        self.assertEqual(endpoint_archive(), endpoint_archive())

    def test_check_in_walt_net(self) -> None:
        """Told by the address of the connection."""
        for client, status, word in (
            ("192.168.1.5 50000 22", 0, "OK"), ("::ffff:192.168.1.5 1 22", 0, "OK"),
            ("10.0.0.1 1 22", 1, "FAILED"), ("fe80::1 1 22", 1, "FAILED"),
            ("", 1, "FAILED"), ("x", 1, "FAILED"),
        ):
            found = self.run_endpoint("check-in-walt-net", client)
            self.assertEqual((found[0], found[1].split()[0]), (status, word), client)

    def test_server_name(self) -> None:
        """Entry points are tested by it."""
        self.assertEqual(
            self.run_endpoint("get-server-hostname"), (0, "walt.example.org\n", "")
        )

    def certificate(self, *options: str) -> None:
        """Write what sshd writes of a session with a certificate."""
        for name in ("ca", "key"):
            if not (self.base / name).exists():
                subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f",
                                str(self.base / name)], check=True)
        subprocess.run(["ssh-keygen", "-q", "-s", str(self.base / "ca"), "-I", "vpn_1", "-n",
                        "walt-vpn", *options, str(self.base / "key.pub")], check=True)
        self.auth.write_text("publickey " + (self.base / "key-cert.pub").read_text())

    def test_no_tunnel(self) -> None:
        """Without certificate, server or device there is a reason, and no traceback."""
        for text in ("", "publickey ssh-ed25519 AAAA\n", "publickey x", "password\n"):
            self.auth.write_text(text)
            status, out, error = self.run_endpoint(None)
            self.assertEqual((status, out, error.count("\n")), (1, "", 1))
            self.assertIn("no tunnel", error)
        self.certificate()
        self.assertIn("no tunnel", self.run_endpoint("rm -rf /; $(id)")[2])

    def serve(self, answer: bytes, device: int | None) -> list[bytes]:
        """Answer one endpoint; return what it says."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.socket))
        listening.listen()
        said: list[bytes] = []

        def work() -> None:
            peer, _ = listening.accept()
            with peer, listening:
                said.append(peer.recv(1000))
                if device is None:
                    peer.sendall(answer)
                    return
                socket.send_fds(peer, [answer], [device])
                said.append(peer.recv(100))
                peer.recv(100)  # its end

        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join)
        return said

    def test_refused(self) -> None:
        """What the server says is told to the board."""
        self.certificate()
        said = self.serve(b"the key vpn_1 is revoked\n", None)
        status, _, error = self.run_endpoint("")
        self.assertEqual((status, error), (1, "walt-vpn: no tunnel: the key vpn_1 is revoked\n"))
        self.assertEqual(said, [b'{"hello": "vpn_1"}\n'])

    def test_tunnel(self) -> None:
        """Frames of standard input reach the device."""
        self.certificate()
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with here, there:
            said = self.serve(b"walt-vpn0\n", there.fileno())
            status, _, error = self.run_endpoint("", given=encode(b"frame" * 20))
            self.assertEqual((status, error), (0, ""))
            self.assertEqual(here.recv(2000), b"frame" * 20)
        self.assertEqual(said, [b'{"hello": "vpn_1"}\n', b"GOT\n"])

    def test_facts(self) -> None:
        """Identity and end are those that ssh-keygen wrote."""
        self.certificate()
        self.assertEqual(of_session(str(self.auth)), ("vpn_1", None))
        self.certificate("-V", "19700101000000Z:19700101000100Z")
        self.assertEqual(of_session(str(self.auth)), ("vpn_1", 60.0))
        words = self.auth.read_text().split()
        whole = words[2]
        for cut in range(0, len(whole) // 4, 7):
            with self.assertRaises(ValueError):
                facts(words[1], whole[:cut][: cut - cut % 4])
        with self.assertRaises(ValueError):
            of_session(str(self.base / "none"))

    @given(st.sampled_from(["ssh-ed25519-cert-v01@openssh.com", "ssh-rsa", "x"]), st.text())
    def test_any_certificate(self, algorithm: str, data: str) -> None:
        """Nothing but ValueError comes of what is none."""
        try:
            facts(algorithm, data)
        except ValueError:
            return
