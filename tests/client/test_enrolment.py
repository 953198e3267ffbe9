"""Enrolment with somebody in between, who answers in the server's place."""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.test_access import request
from walt.client import enrolment
from walt.client.errors import Failure
from walt.common import ampbox
from walt.server.adapters.tls.authority import Authority
from walt.server.domain.access.model import Holder

ADDRESS = "127.0.0.1"
CODE = "abcd-efgh-ijkl-mnop"


class Impostor:
    """A server of some authority; it answers `first` when it is asked for that."""

    def __init__(self, authority: Authority, first: str, again: str) -> None:
        self.authority = authority
        self.first = first
        self.again = again  # the authority that it answers with the certificate
        self.heard: list[bytes] = []
        self._listening = socket.create_server((ADDRESS, 0))
        self._listening.settimeout(10)
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # ends a thread that waits for a connection
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key, chain = self.authority.server_files
        context.load_cert_chain(chain, key)
        for _ in range(2):
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    self._answer(connection)
            except OSError:
                pass  # refused by the client

    def _answer(self, connection: ssl.SSLSocket) -> None:
        decoder = ampbox.Decoder()
        while data := connection.recv(65536):
            for box in decoder.feed(data):
                self.heard.append(box[b"_command"])
                connection.sendall(ampbox.encode({b"_answer": box[b"_ask"], **self._box(box)}))

    def _box(self, box: dict[bytes, bytes]) -> dict[bytes, bytes]:
        if box[b"_command"] == b"enrol.authority":
            return {b"authority": self.first.encode()}
        issued = self.authority.issue(Holder("ann", "user"), request(), time.time(), 1000.0)
        return {
            b"certificate": issued.pem.encode(), b"authority": self.again.encode(),
            b"name": b"ann", b"kind": b"user", b"expires": b"2000000000",
        }


class EnrolmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.patch(os, "environ", {**os.environ, "HOME": str(self.base)})
        self.genuine, self.mine = self.make("genuine"), self.make("mine")
        self.kept = self.base / ".walt" / "servers" / ADDRESS / "authority.pem"

    def make(self, name: str) -> Authority:
        """Return a new authority."""
        for number in itertools.count():
            made = Authority(self.base / f"{name}{number}", [ADDRESS])
            made.prepare(time.time())
            # Lenient decoders of base 64 stop at its padding, and do not see what follows.
            if "=" in made.authority():
                break
        return made

    def enrol(self, server: Authority, first: str, again: str = "") -> list[bytes]:
        """Enrol with a genuine token; return what a server that answers so was asked, and how
        the enrolment failed.
        """
        impostor = Impostor(server, first, again)
        try:
            with mock.patch.object(enrolment, "RPC", impostor.port):
                enrolment.enrol(ADDRESS, f"{CODE}.{self.genuine.fingerprint()[:40]}")
        except Failure as error:
            impostor.heard.append(str(error).encode())
        finally:
            impostor.close()
        return impostor.heard

    def test_one_more_authority(self) -> None:
        """Whoever adds an authority to the genuine one is neither trusted nor told the code."""
        genuine, mine = self.genuine.authority(), self.mine.authority()
        for first in (
            genuine + mine, genuine.strip() + mine, mine + genuine, f"text\n{genuine}",
            f"{genuine}text", genuine + mine.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
            genuine.replace("CERTIFICATE", "X509 CRL"), "", "-----BEGIN CERTIFICATE-----",
        ):
            heard = self.enrol(self.mine, first)
            self.assertEqual(len(heard), 2, heard)
            self.assertEqual(heard[0], b"enrol.authority")
            self.assertIn(b"nothing was sent", heard[1])
            self.assertFalse(self.kept.exists())

    def test_what_was_checked(self) -> None:
        """The authority that the token names is kept, whatever is answered later."""
        heard = self.enrol(
            self.genuine, self.genuine.authority().replace("\n", "\r\n"), self.mine.authority()
        )
        self.assertEqual(heard, [b"enrol.authority", b"enrol.sign"])
        encoded = ssl.PEM_cert_to_DER_cert(self.kept.read_text())
        self.assertEqual(hashlib.sha256(encoded).hexdigest(), self.genuine.fingerprint())
        self.assertEqual(self.kept.read_text().count("BEGIN"), 1)
