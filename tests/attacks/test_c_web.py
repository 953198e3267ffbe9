"""The pages under attack: links, cookies and keys, other ports and sites, hostile messages."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from tests.patience import patient
from tests.system.live import LivePlatform, Program, why_not
from tests.system.test_web import free_port

SAME = {"sec-fetch-site": "same-origin"}


class Attacker:
    """Speaks HTTP as no browser does; all methods wait."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str | None
    ) -> tuple[int, str, http.client.HTTPMessage]:
        """Send one request; headers have `_` for `-`, None for one that is left out."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        wanted: dict[str, str | None] = {
            "origin": self.origin, "content-type": "application/json", **SAME,
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        one = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        one.putrequest(method, path, skip_host="host" in wanted, skip_accept_encoding=True)
        for name, text in wanted.items():
            if text is not None:
                one.putheader(name, text)
        if raw is not None:
            one.putheader("content-length", str(len(raw)))
        one.endheaders(raw)
        answer = one.getresponse()
        text = answer.read().decode(errors="replace")
        one.close()
        return answer.status, text, answer.headers

    def login(self, code: str, **headers: str | None) -> tuple[int, str]:
        """Try a code; return the status, and the cookie and key, or the text."""
        status, text, told = self.ask("POST", "/ui/login", {"code": code}, **headers)
        if status != 200:
            return status, text
        return status, f"{told['set-cookie'].partition(';')[0]} {json.loads(text)['key']}"

    def open(self, key: str, cookie: str, **headers: str) -> tuple[int, socket.socket]:
        """Ask for a WebSocket; return the status and the connection."""
        one = socket.create_connection(("127.0.0.1", self.port), 30)
        wanted = {
            "Host": f"127.0.0.1:{self.port}", "Origin": self.origin, "Upgrade": "websocket",
            "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": f"walt.1, key.{key}", "Cookie": cookie, **headers,
        }
        lines = "".join(f"{name}: {text}\r\n" for name, text in wanted.items() if text)
        one.sendall(f"GET /ui/socket HTTP/1.1\r\n{lines}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = one.recv(1)
            if not data:
                break
            head += data
        return int(head.split()[1]), one


def close_code(one: socket.socket, *messages: bytes) -> int | None:
    """Send something on a WebSocket; return the code with which it is closed."""
    wire = Connection(ConnectionType.CLIENT)
    try:
        for message in messages:
            one.sendall(message)
        while data := one.recv(1 << 16):
            wire.receive_data(data)
            for event in wire.events():
                if isinstance(event, CloseConnection):
                    return event.code
    except ConnectionError:
        pass
    finally:
        one.close()
    return None


class WebAttackTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def start(self) -> None:
        """Start a platform; nobody is in."""
        from twisted.internet import reactor

        self.platform = platform = LivePlatform(reactor)
        platform.ui_port = free_port()
        platform.write_config()
        self.addCleanup(platform.close)
        await platform.start()
        self.attacker = Attacker(platform.ui_port)

    async def code(self, *words: str, user: str = "alice") -> str:
        """Return the code of a new link."""
        link = await self.platform.ok("web", *words, user=user)
        self.assertTrue(link.startswith(f"{self.attacker.origin}/ui/#code="), link)
        return link.strip().partition("code=")[2]

    async def test_doors(self) -> None:
        """Who has no link, no cookie, no key, or is not our own page, gets nothing."""
        await self.start()
        await deferToThread(self.try_requests, [await self.code() for _ in range(7)])
        cookie, key = (await deferToThread(self.attacker.login, await self.code()))[1].split()
        other = (await deferToThread(self.attacker.login, await self.code(user="bob")))[1].split()
        await deferToThread(self.try_sockets, cookie, key, other[1])
        await deferToThread(self.try_messages, cookie, key)
        await deferToThread(self.try_calls, cookie, key)
        await self.relayed(cookie, key)
        # Port 80 of walt-net has no pages for people, and no way in.
        for path in ("/ui/", "/ui/login", "/ui/socket"):
            done = await self.platform.runner.run([
                "nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", "curl", "-sS",
                "-o", "/dev/null", "-w", "%{http_code}", f"http://{self.platform.net}.1{path}",
            ])
            self.assertEqual(done.stdout, b"404")
        mode = os.stat(self.platform.state / "web-sessions.json").st_mode
        self.assertEqual(mode & 0o777, 0o600)
        kept = (self.platform.state / "web-sessions.json").read_text()
        self.assertNotIn(cookie.partition("=")[2], kept)
        self.assertNotIn(key, kept)
        # Logging out ends an open socket, and a session of nobody else.
        _, one = await deferToThread(self.attacker.open, key, cookie)
        ending = deferToThread(close_code, one)
        await self.platform.ok("web", "--logout")
        self.assertEqual(await ending, 4401)
        status, _ = await deferToThread(self.attacker.open, key, cookie)
        self.assertEqual(status, 403)
        status, one = await deferToThread(self.attacker.open, other[1], other[0])
        self.assertEqual(status, 101)
        one.close()

    async def relayed(self, cookie: str, key: str) -> None:
        """`walt web --port`, as on machines of users: the same doors, at an origin of its own."""
        port, program = free_port(), Program()
        process = self.platform.reactor.spawnProcess(
            program, sys.executable,
            [sys.executable, "-m", "walt.client.main", "web", "--port", str(port)],
            {**os.environ, **self.platform.environment()},
        )

        async def told() -> bool:
            return b"\n" in program.out

        await self.platform.until(told, "a link")
        link = program.out.decode().strip()
        there = Attacker(port)
        self.assertTrue(link.startswith(f"{there.origin}/ui/#code="), link)
        code = link.partition("code=")[2]
        # The link is for that origin; a session of the other one is worth nothing here.
        status, _, _ = await deferToThread(
            there.ask, "POST", "/ui/known", {}, cookie=cookie, x_walt_key=key
        )
        self.assertEqual(status, 403)
        status, text = await deferToThread(there.login, code)
        self.assertEqual(status, 200, text)
        mine, secret = text.split()
        self.assertTrue(mine.startswith(f"walt-{port}="))
        await deferToThread(self.try_calls, mine, secret, there)
        process.signalProcess("INT")
        await program.ended

    def try_requests(self, codes: list[str]) -> None:
        """Links that were used or guessed; requests that no page of ours makes."""
        ask, login, origin = self.attacker.ask, self.attacker.login, self.attacker.origin
        fresh = iter(codes)
        for wrong in (
            {"origin": "http://127.0.0.1:1"}, {"origin": "https://evil.example"}, {"origin": None},
            {"origin": "null"}, {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"},
            {"sec_fetch_site": None}, {"host": "evil.example"}, {"host": "localhost:80"},
            {"host": f"127.0.0.1.evil.example:{self.attacker.port}"},
        ):
            self.assertEqual(login(codes[0], **wrong)[0], 403, wrong)
        # The name of another port in both: the link is for one origin alone.
        self.assertEqual(
            login(next(fresh), host="127.0.0.1:81", origin="http://127.0.0.1:81")[0], 403
        )
        code = next(fresh)
        # A form of another site cannot send this kind, and is seen to come from elsewhere.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            self.assertEqual(login(code, content_type=kind)[0], 400)
        for body in (b"", b"[]", b"{", b'{"code": 1}', b'{"code": "%s"}' % (b"x" * 200),
                     b"[" * 60_000):
            self.assertEqual(ask("POST", "/ui/login", body)[0], 400)
        self.assertEqual(ask("POST", "/ui/login", b"x" * 100_000)[0], 413)
        status, first = login(code)
        self.assertEqual(status, 200)
        self.assertEqual(login(code)[0], 403)
        for guess in ("", "0" * 32, code[:-1], code.upper()):
            self.assertEqual(login(guess)[0], 403)
        cookie, key = first.split()
        # Both, or nothing.
        for headers in (
            {"cookie": cookie}, {"x_walt_key": key}, {"cookie": cookie, "x_walt_key": "0" * 32},
            {"cookie": f"{cookie[:-1]}x", "x_walt_key": key},
            {"cookie": cookie, "x_walt_key": key, "origin": "http://127.0.0.1:1"},
            {"cookie": cookie, "x_walt_key": key, "sec_fetch_site": "same-site"},
        ):
            for path in ("/ui/known", "/ui/logout"):
                self.assertEqual(ask("POST", path, {}, **headers)[0], 403, headers)
        self.assertEqual(ask("POST", "/ui/known", {}, cookie=cookie, x_walt_key=key)[0], 200)
        self.assertEqual(ask("POST", "/ui/logout", {}, cookie=cookie, x_walt_key=key)[0], 200)
        self.assertEqual(ask("POST", "/ui/known", {}, cookie=cookie, x_walt_key=key)[0], 403)
        # The cookie is for scripts of nobody, for our path, for no other site, for one port.
        _, _, told = ask("POST", "/ui/login", {"code": next(fresh)})
        for part in (f"walt-{self.attacker.port}=", "HttpOnly", "SameSite=strict", "Path=/ui"):
            self.assertIn(part.lower(), told["set-cookie"].lower())
        # Pages: nothing of others runs in them, and nothing outside of them is given away.
        for path in ("/ui/nodes", "/ui/assets/main.js", "/ui/assets/../ui.py", "/nothing",
                     "/ui/assets/%2e%2e/ui.py", "/ui/assets/vendor/../../ui.py",
                     "/ui/nodes/<script>alert(1)</script>"):
            status, text, told = ask("GET", path, origin=origin)
            self.assertIn("default-src 'none'", told["content-security-policy"])
            self.assertIn("require-trusted-types-for 'script'", told["content-security-policy"])
            self.assertEqual(told["x-content-type-options"], "nosniff")
            self.assertEqual(told["referrer-policy"], "no-referrer")
            self.assertNotIn("Doorkeeper", text)
            self.assertNotIn("<script>alert", text)

    def try_sockets(self, cookie: str, key: str, key_of_other: str) -> None:
        """Handshakes without right."""
        opened = self.attacker.open
        for values, headers in (
            ((key, ""), {}), (("", cookie), {}), ((key_of_other, cookie), {}),
            ((key, cookie), {"Origin": "http://127.0.0.1:1"}), ((key, cookie), {"Origin": ""}),
            ((key, cookie), {"Host": "evil.example"}),
            ((key, cookie), {"Sec-Fetch-Site": "cross-site"}),
        ):
            status, one = opened(*values, **headers)
            one.close()
            self.assertEqual(status, 403, (values, headers))
        for headers in ({"Upgrade": "h2c"}, {"Sec-WebSocket-Version": "12"},
                        {"Sec-WebSocket-Key": "short"}, {"Connection": "close"}):
            status, one = opened(key, cookie, **headers)
            one.close()
            self.assertEqual(status, 400, headers)

    def try_messages(self, cookie: str, key: str) -> None:
        """What no page sends closes its socket, and nothing else."""
        def sent(*texts: str) -> list[bytes]:
            wire = Connection(ConnectionType.CLIENT)
            return [wire.send(TextMessage(text)) for text in texts]

        for messages, code in (
            (sent("what"), 4400), (sent("[" * 30_000), 4400), (sent('{"watch": ["passwd"]}'), 4400),
            (sent('{"call": -1, "command": "x"}'), 4400), (sent('{"call": 1e400}'), 4400),
            (sent('{"open": 300}'), 4400), (sent('{"watch": {}}'), 4400), (sent("{}"), 4400),
            (sent('{"open": 1, "request": "REQ_DUMP_LOGS", "parameters": []}'), 4400),
            ([b"\x81\xff" + (100 << 20).to_bytes(8, "big") + bytes(4), *[bytes(1 << 16)] * 4],
             1009),
            ([b"\x01\xfe\xff\xff" + bytes(4) + bytes(65535), b"\x80\xfe\xff\xff" + bytes(4)
              + bytes(65535)], 1009),
            ([b"\x01\x80" + bytes(4), *[b"\x00\x80" + bytes(4)] * 200], 1009),
            ([b"\xff" * 100], 1002),
        ):
            status, one = self.attacker.open(key, cookie)
            self.assertEqual(status, 101)
            # Who goes on sending may find the connection reset before it reads why.
            expected = {code} if sum(map(len, messages)) < 1 << 16 else {code, None}
            self.assertIn(close_code(one, *messages), expected, messages[0][:60])

    def try_calls(self, cookie: str, key: str, attacker: Attacker | None = None) -> None:
        """Calls that a page may not make are answered, and the page lives on."""
        status, one = (attacker or self.attacker).open(key, cookie)
        self.assertEqual(status, 101)
        wire = Connection(ConnectionType.CLIENT)
        wanted = [
            ("cs.access.renew", {"request": "x"}, "DENIED"), ("cs.web.invite", {}, "DENIED"),
            ("cs.keys.add", {}, "DENIED"), ("ss.access.invite", {"name": "eve"}, "DENIED"),
            ("ns.clock.sync", {}, "DENIED"), ("enrol.sign", {}, "DENIED"),
            ("hello", {"program": "walt", "version": "0", "protocol": 1, "username": "bob"}, None),
            ("cs.nodes.reboot", {"nodes": 7, "hard_only": 1, "cause": None}, "INVALID"),
            ("cs.nodes.reboot", {"nodes": ["a"], "hard_only": True, "cause": "x"}, "INVALID"),
            ("cs.nodes.show", {"all": True, "more": 1}, "INVALID"), ("cs.nope", {}, "INVALID"),
            ("cs.nodes.boot", {"nodes": "x' or 1", "image": "$(id)", "cause": "\0"}, "INVALID"),
            ("cs.nodes.show", {"all": True}, ""),
        ]
        for number, (command, arguments, _) in enumerate(wanted):
            one.sendall(wire.send(TextMessage(json.dumps(
                {"call": number, "command": command, "arguments": arguments}
            ))))
        answers: dict[int, str] = {}
        text = ""
        while len(answers) < len(wanted):
            data = one.recv(1 << 16)
            self.assertTrue(data, answers)
            wire.receive_data(data)
            for event in wire.events():
                assert isinstance(event, TextMessage)
                text += event.data
                if event.message_finished:
                    value, text = json.loads(text), ""
                    if "answer" in value:
                        answers[value["answer"]] = ""
                    elif "error" in value:
                        answers[value["error"]] = value["code"]
        one.close()
        for number, (command, _, code) in enumerate(wanted):
            if code is None:
                self.assertNotEqual(answers[number], "", command)
            else:
                self.assertEqual(answers[number], code, command)
