"""What a node, or whoever is in its network, asks and tells: nothing of others is had or changed.

Nothing boots here: sockets with addresses of walt-net, in the server's namespace, are nodes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not

VICTIM, ATTACKER = "02:00:00:00:09:01", "02:00:00:00:09:02"
# Runs as the attacker: argv has its address, the victim's, the server's, the root of the code.
ATTACK = """
import json, pickle, socket, struct, sys
own, victim, server, root = sys.argv[1:]
sys.path.insert(0, root)
from walt.common import ampbox
VICTIM, ATTACKER = "02:00:00:00:09:01", "02:00:00:00:09:02"

def talk(port, data, source=own, wait=20):
    one = socket.create_connection((server, port), wait, (source, 0))
    one.settimeout(wait)
    found = b""
    try:
        one.sendall(data)
        while piece := one.recv(65536):
            found += piece
    except OSError:
        pass
    one.close()
    return found.decode(errors="replace")

def old(method, *arguments):
    line = f"{('API_CALL', method, arguments, {})!r}\\n('CLOSE',)\\n"
    return talk(12345, b"10\\nVSAPI\\n" + line.encode())

def pickled(value):
    return b"10\\nVSAPI\\n('SET_MODE', 'pickle4')\\n" + value

def had(start, end):
    return b"\\x80\\x04" + start + nested + end

nested = b"N" + b"2\\x86" * 60
kept = {
    "addresses": [
        old("register_device", "", "walt.node.pc-x86-64", ip, f"02:00:00:00:0a:{number:02x}", "x")
        for number, ip in enumerate(("127.0.0.1", "8.8.8.8", server, victim, victim[:-1] + "9"))
    ],
    "info": old("get_device_info", VICTIM),
    "request 12": talk(12347, b"12\\n" + pickle.dumps({"node_mac": VICTIM, "path": "/x"}, 4)),
    "http": talk(80, f"GET /boot/x?node_ip={victim} HTTP/1.0\\r\\n\\r\\n".encode())[:12],
    "own http": talk(80, f"GET /boot/x?node_ip={own} HTTP/1.0\\r\\n\\r\\n".encode())[:12],
    "trees": [
        talk(12345, pickled(had(b"}", b"Ns."))),
        talk(12345, pickled(had(b"(\\x8c\\x08API_CALL\\x8c\\x0fget_device_info", b"}t."))),
        talk(12347, b"12\\n" + had(b"}(\\x8c\\x08node_mac\\x8c\\x01x\\x8c\\x04path", b"u.")),
    ],
    "report": talk(12345, ampbox.encode({
        b"_ask": b"1", b"_command": b"ns.lldp.report", b"mac": VICTIM.encode(), b"label": b"1",
    }), wait=3),
}
print(json.dumps(kept))
"""


class NodeCallTests(TestCase):
    skip = why_not()
    timeout = patient(180)

    async def test_calls_of_a_node(self) -> None:
        """Registrations, records, boot files, reports and values without end."""
        from twisted.internet import reactor

        platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.start()
        victim, attacker = f"{platform.net}.61", f"{platform.net}.62"
        for mac, ip in ((VICTIM, victim), (ATTACKER, attacker)):
            await platform.event("commit", "", "", ip, mac, "", "0", "unknown")
        before = await self.devices(platform)
        enter = ["nsenter", f"--net=/run/netns/{platform.namespace}", "--"]
        await platform.runner.run([*enter, "ip", "address", "add", f"{attacker}/32", "dev", "lo"])
        done = await platform.runner.run(
            [
                *enter, sys.executable, "-c", ATTACK, attacker, victim, f"{platform.net}.1",
                str(ROOT),
            ],
            timeout=patient(100),
        )
        told = json.loads(done.stdout)
        for answer in told["addresses"]:
            self.assertIn("EXCEPTION", answer)
        self.assertIn(f"'mac': '{VICTIM}'", told["info"])
        self.assertEqual(told["request 12"], "READY\nNO SUCH FILE\n")
        self.assertEqual((told["http"], told["own http"]), ("HTTP/1.0 403", "HTTP/1.0 404"))
        for answer in told["trees"]:
            self.assertNotIn("RESULT", answer)
        self.assertEqual(await self.devices(platform), before)
        await self.transfer(platform, enter)

    async def devices(self, platform: LivePlatform) -> Any:
        """Return what is known of devices."""
        return json.loads(await platform.ok("device", "show", "--json"))

    async def transfer(self, platform: LivePlatform, enter: list[str]) -> None:
        """named names one device at a time, not all of them at once."""
        done = await platform.runner.run(
            [*enter, "dig", "+time=2", "+tries=1", f"@{platform.net}.1", "walt", "AXFR"],
            check=False,
        )
        self.assertNotIn(b"IN\tA", done.stdout)
        self.assertIn(b"Transfer failed", done.stdout)
