"""Users, certificates and sessions (C), and what people see (D), on a live platform.

Nobody without a certificate may shut a user out; nobody may act after the revocation of
theirs; nobody who reads slowly may keep others from reading or nodes from writing; no one
may learn through a build what answers in the server's networks; no text of a node may reach
a terminal as a command.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.dialogue import Dialogue
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load
from walt.server.domain.access.enrolment import MAX_RENEWALS
from walt.server.domain.shares import MAX_SESSIONS, MAX_WEB_READERS
from walt.server.runtime.process import ProcessResult

# Speaks AMP over TLS; `cert` is a directory of an enrolment, or none.
COMMON = """
import socket, ssl, sys, time
from walt.common import ampbox
server = sys.argv[1]
def connect(place=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if place:
        context.load_cert_chain(place + "/certificate.pem", place + "/key.pem")
    one = context.wrap_socket(socket.create_connection((server, 12345), 30))
    return one, ampbox.Decoder()
def send(one, **values):
    one[0].sendall(ampbox.encode({b"_ask": b"1", **{
        name.encode(): value.encode() for name, value in values.items()
    }}))
def answer(one):
    while True:
        data = one[0].recv(65536)
        if not data:
            return {}
        for box in one[1].feed(data):
            return box
def hello(one, user):
    send(one, _command="hello", program="test", version="1", protocol="1", username=user)
    return answer(one)
"""
# More strangers than a user may have sessions, all of whom say that they are the user.
STRANGERS = COMMON + """
kept = [connect() for _ in range(int(sys.argv[2]))]
print(sum(b"_error_code" not in hello(one, "ann") for one in kept))
sys.stdout.flush()
sys.stdin.read()
"""
# Wrong codes, one for each connection.
GUESSES = COMMON + """
for _ in range(3):
    one = connect()
    send(one, _command="enrol.sign", code="aaaa-aaaa-aaaa-aaaa", request="x")
    print(answer(one)[b"_error_code"].decode())
"""
# As many renewals as the network takes, while somebody revokes.
RENEWALS = COMMON + """
from walt.client import enrolment
place, request = sys.argv[2], enrolment._request()[1]
kept = [connect(place) for _ in range(20)]
for one in kept:
    hello(one, "ann")
print("ready")
sys.stdout.flush()
sys.stdin.readline()
for one in kept:
    send(one, _command="cs.access.renew", request=request)
codes = []
for one in kept:
    try:
        codes.append(answer(one).get(b"_error_code", b"OK").decode())
    except OSError:
        codes.append("CLOSED")
print(*codes)
"""
# Readers that ask for everything, and take nothing.
SLOW = """
import socket, sys, time
kept = []
for _ in range(30):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((sys.argv[1], 80))
    path = b"/api/v1/logs?from=1600000000&to=%d" % time.time()
    one.sendall(b"GET " + path + b" HTTP/1.1\\r\\nHost: walt-server\\r\\n\\r\\n")
    kept.append(one)
print(sum(one.recv(12).endswith(b"200") for one in kept))
sys.stdout.flush()
sys.stdin.read()
"""


class UsersTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def test_attacks(self) -> None:
        """All of them, on one platform, which stops in order afterwards."""
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.load = Load(self.platform)
        self.addCleanup(self.platform.close)
        self.addCleanup(self.load.database.close)
        await self.platform.start()
        self.server = f"{self.platform.net}.1"
        await self.strangers()
        await self.guesses()
        await self.escapes()
        await self.scans()
        await self.slow_readers()
        await self.revoked()
        self.load.database.close()
        self.assertEqual(await self.platform.stop(), 0)

    def argv(self, *words: str) -> list[str]:
        """Return a Python program in the namespace of the server."""
        return [
            "nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", sys.executable, *words,
        ]

    def environment(self, **more: str) -> dict[str, str]:
        home = self.platform.base / "home"
        home.mkdir(exist_ok=True)
        return {"PYTHONPATH": str(ROOT), "HOME": str(home), "PATH": os.environ["PATH"], **more}

    async def inside(self, *words: str, **more: str) -> ProcessResult:
        """Run a Python program there to its end."""
        return await self.platform.runner.run(
            self.argv(*words), check=False, timeout=60, env=self.environment(**more)
        )

    def begin(self, script: str, *words: str) -> Dialogue:
        """Start a script there that waits for its input."""
        program = Dialogue()
        argv = self.argv("-c", script, self.server, *words)
        self.platform.reactor.spawnProcess(program, argv[0], argv, self.environment())
        return program

    async def says(self, program: Dialogue, pattern: bytes) -> bytes:
        """Return what a script said, once that matches."""
        async def said() -> bool:
            return re.search(pattern, bytes(program.seen)) is not None

        await self.platform.until(said, f"a script says {pattern!r}: {program.seen!r}", 60)
        return bytes(program.seen)

    async def end(self, program: Any) -> None:
        program.transport.closeStdin()
        await program.ended.addTimeout(30, self.platform.reactor)

    async def strangers(self) -> None:
        """They fill no share of the user whose name they say."""
        count = MAX_SESSIONS + 5
        program = self.begin(STRANGERS, str(count))
        await self.says(program, rb"(?m)^%d$" % count)
        await self.platform.ok("device", "show", user="ann")
        await self.end(program)

    async def guesses(self) -> None:
        """Wrong codes are refused, and told to whoever reads the platform's log."""
        done = await self.inside("-c", GUESSES, self.server)
        self.assertEqual(done.stdout.split(), [b"DENIED"] * 3, done.stderr)
        told = await self.platform.ok("log", "show", "--platform", "--history", "full")
        self.assertEqual(told.count("a wrong enrolment code was tried from"), 1, told)

    async def escapes(self) -> None:
        """A line of a node neither moves the cursor of who reads it, nor sets the title."""
        line = "\x1b]0;owned\x07\x1b[2K\x1b[1Aok\rforged"
        await self.platform.runner.run([
            "nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", "socat", "-t", "10",
            "-", f"TCP:{self.server}:12347,bind={self.server}",
        ], stdin=f"REQ_NEW_INCOMING_LOGS\nexp\nNO_TIMESTAMPS\n{line}\nCLOSE\n".encode())
        words = (
            "log", "show", "--issuers", "server", "--streams", "^exp$", "--history", "full",
            "--format", "{line}",
        )

        async def stored() -> bool:
            return line in await self.platform.ok(*words)  # piped: as it came

        await self.platform.until(stored, "the line is stored", 20)
        person = Dialogue()
        argv = [sys.executable, "-m", "walt.client.main", *words]
        self.platform.reactor.spawnProcess(
            person, argv[0], argv, {**self.environment(), **self.platform.environment()},
            usePTY=True,
        )
        self.assertEqual(await person.ended.addTimeout(30, self.platform.reactor), 0, person.seen)
        self.assertIn(b"\\x1b]0;owned\\x07\\x1b[2K\\x1b[1Aok\\rforged", person.seen)
        self.assertNotIn(b"\x1b", person.seen)

    async def scans(self) -> None:
        """Builds do not tell which ports of the server answer, and open none of them."""
        texts = set()
        for url in (
            "git://127.0.0.1:1/x", "http://127.0.0.1:1/x", "http://localhost:22/x",
            f"http://{self.server}/x", f"http://{self.server}:12345/x", "ssh://[::1]/x",
            "git@no-such-host.invalid:x", "git://169.254.169.254/x",
        ):
            done = await self.platform.walt("image", "build", "--from-url", url, "scan")
            self.assertEqual(done.status, 1, done)
            texts.add(done.stderr)
        self.assertEqual(len(texts), 1, texts)
        key = self.platform.state / "ssh" / "nodes.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)

    async def slow_readers(self) -> None:
        """30 of them take the places of the web API alone: people read and nodes write."""
        await self.load.database.execute(
            "INSERT INTO logs (stream_id, timestamp, place, arrival, line) SELECT s.id,"
            " now() - interval '1 hour', now() - interval '1 hour', n, repeat('x', 2000)"
            " FROM generate_series(1, 20000) n,"
            " (SELECT id FROM logstreams WHERE name = 'exp') s"
        )
        program = self.begin(SLOW)
        await self.says(program, rb"(?m)^%d$" % MAX_WEB_READERS)
        for number in range(12):
            await self.platform.ok("device", "show")
            out = await self.platform.ok("log", "show", "--platform", "--history", "-1h:")
            self.assertIn("wrong enrolment code", out, number)
        await self.end(program)

    async def revoked(self) -> None:
        """Nothing that was open or on its way outlives a revocation."""
        text = await self.platform.ok("advanced", "add-user", "ann")
        found = re.search(r"walt advanced enrol \S+ (\S+)\n", text)
        assert found is not None
        remote = {"WALT_SERVER": self.server}
        done = await self.inside(
            "-m", "walt.client.main", "advanced", "enrol", self.server, found[1], **remote
        )
        self.assertEqual(done.status, 0, done.stderr)
        place = str(self.platform.base / "home" / ".walt" / "servers" / self.server)
        stream = Dialogue()
        argv = self.argv("-m", "walt.client.main", "log", "show", "--platform", "--realtime",
                         "--history", "full")
        self.platform.reactor.spawnProcess(stream, argv[0], argv, self.environment(**remote))
        await self.says(stream, b"ann enrolled")
        program: Any = self.begin(RENEWALS, place)
        await self.says(program, b"ready")
        program.transport.write(b"go\n")
        await self.platform.ok("advanced", "revoke", "ann")
        await program.ended.addTimeout(30, self.platform.reactor)
        codes = bytes(program.seen).split(b"\n")[1].split()
        self.assertEqual(len(codes), 20, program.seen)
        self.assertLessEqual(codes.count(b"OK"), MAX_RENEWALS)
        rows = json.loads(await self.platform.ok("advanced", "show-certificates", "--json"))
        self.assertEqual([row for row in rows if not row["revoked"]], [])
        status = await stream.ended.addTimeout(30, self.platform.reactor)
        self.assertNotEqual(status, 0, stream.seen)
        refused = await self.inside("-m", "walt.client.main", "device", "show", **remote)
        self.assertEqual((refused.status, b"revoked" in refused.stderr), (1, True), refused)
