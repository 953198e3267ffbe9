"""Who comes in: certificates, plain connections, foreigners, in a real namespace."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

import walt
from tests.patience import patient
from tests.system.dialogue import Dialogue
from tests.system.live import ROOT, LivePlatform, why_not
from tests.system.load import Load
from walt.server.assembly import privileges
from walt.server.runtime.process import ProcessResult

# Says one call in plain AMP from an address, prints the code and the text of the answer.
PLAIN = """
import socket, sys
from walt.common import ampbox
server, source, command = sys.argv[1:4]
one = socket.create_connection((server, 12345), 60, (source, 0))
decoder = ampbox.Decoder()
def ask(box):
    one.sendall(ampbox.encode({b"_ask": b"1", **box}))
    while True:
        data = one.recv(65536)
        if not data:
            return {}
        for answer in decoder.feed(data):
            return answer
ask({b"_command": b"hello", b"program": b"test", b"version": b"1", b"protocol": b"1",
     b"username": b"eve"})
answer = ask({
    b"_command": command.encode(), b"all": b"True", b"mac": b"02:00:00:00:00:07",
    b"label": b"1", b"ip": b"192.168.181.77", b"vci": b"", b"uci": b"", b"name": b"hosted",
})
print(answer.get(b"_error_code", b"OK").decode(), answer.get(b"_error_description", b"").decode())
"""
# What a server says to a peer that offers TLS 1.2 at most.
OLD_TLS = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.maximum_version = ssl.TLSVersion.TLSv1_2
try:
    context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2])), 5))
except (ssl.SSLError, ConnectionError) as error:
    print("refused", error)
"""


class DoorsTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def start(self) -> None:
        """Start a server with one virtual client machine: a home directory."""
        from twisted.internet import reactor

        self.platform = LivePlatform(reactor)
        self.load = Load(self.platform)
        self.addCleanup(self.platform.close)
        self.addCleanup(self.load.database.close)
        await self.platform.start()
        self.server = f"{self.platform.net}.1"

    async def inside(
        self, *argv: str, home: str = "one", **environment: str
    ) -> ProcessResult:
        """Run a program in the namespace, as the account of some machine."""
        directory = self.platform.base / f"home-{home}"
        directory.mkdir(exist_ok=True)
        return await self.platform.runner.run(
            ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--",
             sys.executable, *argv],
            check=False, timeout=60,
            env={"PYTHONPATH": str(ROOT), "HOME": str(directory), **environment},
        )

    async def walt(
        self, *words: str, home: str = "one", **environment: str
    ) -> tuple[int, str, str]:
        """Run the walt command of another machine; return status, output and errors."""
        result = await self.inside(
            "-m", "walt.client.main", *words, home=home,
            **{"WALT_SERVER": self.server, **environment},
        )
        return result.status, result.stdout.decode(), result.stderr.decode()

    async def token(self, name: str, kind: str = "user") -> str:
        """Invite somebody; return the token."""
        text = await self.platform.ok("advanced", f"add-{kind}", name)
        found = re.search(r"walt advanced enrol \S+ (\S+)\n", text)
        assert found is not None, text
        return found[1]

    async def plain(self, source: str, command: str) -> str:
        """Call a command without TLS."""
        server = "127.0.0.1" if source.startswith("127.") else self.server
        result = await self.inside("-c", PLAIN, server, source, command)
        return result.stdout.decode()

    async def test_plain(self) -> None:
        """Without a certificate: nothing from elsewhere, the calls of nodes from walt-net."""
        await self.start()
        for source in ("127.0.0.1", self.server):
            text = await self.plain(source, "cs.nodes.show")
            self.assertRegex(text, "^DENIED .* need a certificate of this platform")
            self.assertRegex(await self.plain(source, "enrol.authority"), "^DENIED ")
            self.assertRegex(await self.plain(source, "ss.access.show"), "^DENIED ")
        # A device that dhcpd knows nothing of is not believed, and recorded nowhere.
        self.assertRegex(
            await self.plain(self.server, "vs.devices.register"),
            "^DENIED 192.168.181.77 is neither the address of the caller nor one that",
        )
        self.assertNotIn("192.168.181.77", await self.platform.ok("device", "show"))
        await self.platform.event(
            "commit", "", "walt.node.pc-x86-64", "192.168.181.77", "02:00:00:00:00:07", "", "0",
            "unknown",
        )

        async def known() -> bool:
            return "192.168.181.77" in await self.platform.ok("device", "show")

        await self.platform.until(known, "dhcpd's device is known", 20)
        for command in (
            "ns.clock.sync", "vs.devices.register", "vs.devices.get", "ns.lldp.report",
        ):
            self.assertRegex(await self.plain(self.server, command), "^OK", command)
        self.assertIn("192.168.181.77", await self.platform.ok("device", "show"))
        self.assertRegex(await self.plain("127.0.0.1", "ns.clock.sync"), "^DENIED ")
        for port in ("12345", "12347"):
            result = await self.inside("-c", OLD_TLS, self.server, port)
            self.assertIn(b"refused", result.stdout)
        await self.pages()
        status, _, error = await self.walt("node", "show", WALT_USERNAME="ann")
        self.assertEqual(status, 1)
        self.assertIn("walt advanced add-user ann", error)
        await self.first_use()
        await self.other_version()

    async def other_version(self) -> None:
        """A client of another version installs that of the server, and runs the command."""
        run, place = self.platform.runner.run, self.platform.base / "old"
        await run([sys.executable, "-m", "venv", str(place)], timeout=60)
        made = await run(
            [sys.executable, "-m", "walt.server.tools.client_wheel", str(self.platform.base)],
            env={"PYTHONPATH": str(ROOT)},
        )
        python, wheel = str(place / "bin" / "python"), made.stdout.decode().strip()
        await run([python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel],
                  timeout=60)
        (package,) = place.glob("lib/python*/site-packages/walt/__init__.py")
        package.write_text(package.read_text().replace(walt.__version__, "10.99"))
        environment = {**self.platform.environment(), "TERM": "dumb", "HOME": str(place)}
        del environment["PYTHONPATH"]
        argv = [str(place / "bin" / "walt"), "device", "show"]
        refused = await run(argv, env=environment, check=False)
        self.assertEqual(refused.status, 1)
        self.assertIn(b"your client is 10.99", refused.stderr)
        for answer, status in ((b"n\n", 1), (b"y\n", 0)):
            person = Dialogue((b"(y/n): ", answer))
            self.platform.reactor.spawnProcess(person, argv[0], argv, environment, usePTY=True)
            ended = await person.ended.addTimeout(60, self.platform.reactor)
            self.assertEqual(ended, status, person.seen)
        self.assertIn(b"walt-server", person.seen)
        shown = await run(argv, env=environment)
        self.assertIn(b"walt-server", shown.stdout)

    async def first_use(self) -> None:
        """An account that knows no server is asked, enrols, and is not asked again."""
        token = await self.token("eve")
        code = (
            "from walt.client import main, settings; settings.LOCAL_SOCKET = '/none/rpc.sock';"
            "settings.SERVER_FILE = '/none/server.conf'; main.main()"
        )
        status, _, error = await self.newcomer(code)
        self.assertEqual((status, "set WALT_SERVER" in error), (1, True), error)
        person = Dialogue(
            (b"WalT server: ", b"tcp:127.0.0.1\n"), (b"(y/n): ", b"n\n"),
            (b"on this platform: ", b"eve\n"),
            (b"WalT server: ", f"{self.server}\n".encode()),
            (b"Token: ", f"{token}\n".encode()),
        )
        home = self.platform.base / "home-new"
        argv = [
            "nsenter", f"--net=/run/netns/{self.platform.namespace}", "--",
            sys.executable, "-c", code, "device", "show",
        ]
        self.platform.reactor.spawnProcess(
            person, argv[0], argv, {"PYTHONPATH": str(ROOT), "HOME": str(home), "TERM": "dumb"},
            usePTY=True,
        )
        status = await person.ended.addTimeout(60, self.platform.reactor)
        self.assertEqual(status, 0, person.seen)
        self.assertIn(b"need a certificate", person.seen)
        self.assertIn(b"walt-server", person.seen)
        file = home / ".walt" / "config"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertIn(f'server: "{self.server}"', file.read_text())
        status, out, error = await self.newcomer(code)
        self.assertEqual((status, "walt-server" in out), (0, True), error)

    async def newcomer(self, code: str) -> tuple[int, str, str]:
        """Show devices without terminal, as an account of its own."""
        result = await self.inside("-c", code, "device", "show", home="new")
        return result.status, result.stdout.decode(), result.stderr.decode()

    async def pages(self) -> None:
        """The web API and the metrics: read on the server, not under another name."""
        script = (
            "import sys, urllib.request as u\n"
            "print(u.urlopen(u.Request(sys.argv[1], headers={'Host': sys.argv[2]}),"
            " timeout=5).read().decode())\n"
        )
        for path, text in (
            ("metrics", 'walt_service_up{service="dhcpd"} 1.0'), ("metrics", "walt_limit{name="),
            ("metrics", 'walt_rpc_call_seconds_count{command="cs.devices.show"}'),
            ("api/v1/nodes", '"num_nodes": 0'), ("api/v1/services", '"named"'),
            ("doc/", "WalT documentation"), ("doc/logging.html", "<code>platform.nodes</code>"),
            ("", "WalT server HTTP service"),
        ):
            result = await self.inside("-c", script, f"http://{self.server}/{path}", "walt-server")
            self.assertIn(text.encode(), result.stdout, result.stderr)
        for path in ("metrics", "api/v1/nodes"):
            result = await self.inside("-c", script, f"http://{self.server}/{path}", "evil.example")
            self.assertIn(b"403", result.stderr)

    async def test_privileges(self) -> None:
        """Neither the server nor its daemons keep capabilities they have no use for."""
        await self.start()
        pids = [row["pid"] for row in (await self.platform.services()).values()]
        for pid in [self.platform.pid, *filter(None, pids)]:
            status = dict(
                line.split(":\t", 1)
                for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            )
            kept = sum(1 << number for number in privileges.KEPT)
            for name in ("CapEff", "CapPrm", "CapBnd"):
                self.assertEqual(int(status[name], 16) & ~kept, 0, (pid, name))

    async def test_enrolment(self) -> None:
        """A user enrols once, works over TLS as that user only, and is revoked."""
        await self.start()
        token = await self.token("ann")
        wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
        status, _, error = await self.walt("advanced", "enrol", self.server, wrong)
        self.assertEqual((status, "nothing was sent" in error), (1, True), error)
        status, out, error = await self.walt("advanced", "enrol", self.server, token)
        self.assertEqual(status, 0, error)
        self.assertIn(f"You may use the server at {self.server} as ann", out)
        files = self.platform.base / "home-one/.walt/servers" / self.server
        self.assertEqual({path.stat().st_mode & 0o777 for path in files.iterdir()}, {0o600})
        status, _, error = await self.walt("advanced", "enrol", self.server, token, home="two")
        self.assertEqual((status, "used" in error), (1, True), error)

        status, out, error = await self.walt("device", "show", "--json")
        self.assertEqual(status, 0, error)
        self.assertIn("walt-server", out)
        # Streams are encrypted too.
        status, out, error = await self.walt("device", "ping", "walt-server")
        self.assertEqual((status, "0% packet loss" in out), (0, True), error + out)
        status, out, error = await self.walt("log", "show", "--platform", "--history", "full")
        self.assertEqual((status, "user ann enrolled" in out), (0, True), error + out)
        status, _, error = await self.walt("device", "show", WALT_USERNAME="bob")
        self.assertEqual((status, "this certificate is for ann" in error), (1, True), error)
        # Administration stays on the server.
        status, _, error = await self.walt("advanced", "add-user", "eve")
        self.assertEqual((status, "ss.access.invite may not be called" in error), (1, True), error)

        example = await self.inside(str(ROOT / "docs/examples/nodes.py"), self.server)
        self.assertEqual((example.status, example.stdout), (0, b"0 nodes\n"), example.stderr)

        await self.platform.ok("advanced", "revoke", "ann")
        status, _, error = await self.walt("device", "show")
        self.assertEqual((status, "revoked" in error), (1, True), error)
        [row] = json.loads(await self.platform.ok("advanced", "show-certificates", "--json"))
        self.assertEqual((row["name"], row["kind"], bool(row["revoked"])), ("ann", "user", True))
        example = await self.inside(str(ROOT / "docs/examples/nodes.py"), self.server)
        self.assertEqual(example.status, 1)
        self.assertIn(b"revoked", example.stderr)

    async def test_machines_and_rotation(self) -> None:
        """A shared machine states its users; a new authority disturbs nobody."""
        await self.start()
        token = await self.token("lab", "machine")
        status, out, error = await self.walt("advanced", "enrol", self.server, token)
        self.assertEqual((status, "for any user" in out), (0, True), error)
        for user in ("ann", "bob"):
            status, _, error = await self.walt("device", "show", WALT_USERNAME=user)
            self.assertEqual(status, 0, error)
        await self.platform.ok("advanced", "rotate-authority")
        status, _, error = await self.walt("device", "show", WALT_USERNAME="ann")
        self.assertEqual(status, 0, error)
        token = await self.token("joe")
        status, _, error = await self.walt("advanced", "enrol", self.server, token, home="two")
        self.assertEqual(status, 0, error)
        status, out, error = await self.walt("advanced", "renew", WALT_USERNAME="ann")
        self.assertEqual((status, "is renewed" in out), (0, True), error)
        for home in ("one", "two"):
            status, _, error = await self.walt("device", "show", home=home)
            self.assertEqual(status, 0, error)
        # The server keeps its authority over a restart.
        self.load.database.close()
        await self.platform.stop()
        await self.platform.start()
        status, _, error = await self.walt("device", "show")
        self.assertEqual(status, 0, error)
        await self.foreigners()

    async def foreigners(self) -> None:
        """The certificate of another platform, and a server that is another one."""
        files = self.platform.base / "home-one/.walt/servers" / self.server
        other = self.platform.base / "home-other/.walt/servers" / self.server
        script = (
            "import sys; from pathlib import Path\n"
            "from tests.contracts.test_access import ANN, NOW, request\n"
            "import time\n"
            "from cryptography.hazmat.primitives import serialization as s\n"
            "from cryptography.hazmat.primitives.asymmetric import ec\n"
            "from walt.server.adapters.tls.authority import Authority\n"
            "place, files = Path(sys.argv[1]), Path(sys.argv[2])\n"
            "authority = Authority(place / 'ca', ['x.example'])\n"
            "authority.prepare(time.time())\n"
            "key = ec.generate_private_key(ec.SECP256R1())\n"
            "issued = authority.issue(ANN, request(key), time.time(), 1e6)\n"
            "files.mkdir(parents=True)\n"
            "(files / 'key.pem').write_bytes(key.private_bytes(s.Encoding.PEM,"
            " s.PrivateFormat.PKCS8, s.NoEncryption()))\n"
            "(files / 'certificate.pem').write_text(issued.pem)\n"
            "(files / 'foreign.pem').write_text(issued.authority)\n"
        )
        result = await self.inside("-c", script, str(self.platform.base), str(other))
        self.assertEqual(result.status, 0, result.stderr)
        (other / "authority.pem").write_bytes((files / "authority.pem").read_bytes())
        status, _, error = await self.walt("device", "show", home="other")
        self.assertEqual((status, "refused the certificate" in error), (1, True), error)
        (other / "authority.pem").write_bytes((other / "foreign.pem").read_bytes())
        status, _, error = await self.walt("device", "show", home="other")
        self.assertEqual(
            (status, "the server's certificate is not the one expected" in error), (1, True), error
        )
        self.assertNotIn("Traceback", Path(self.platform.log).read_text())
