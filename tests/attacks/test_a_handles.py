"""NFS file handles that a node makes up reach nothing but what it may read or write anyway."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.patience import patient
from tests.system.live import ROOT, LivePlatform, why_not

VICTIM, ATTACKER = "02:00:00:00:09:01", "02:00:00:00:09:02"
SECRET = "of the server alone"
INODES = 5000
# Prints what a peer at argv[1] finds: argv has the server's address, the minor version of
# the protocol, numbers of inodes, handles of the victim, and the numbers of all exports.
ATTACK = """
import json, struct, sys
from tests.attacks.nfs_client import NfsClient, REGULAR, DIRECTORY
source, server, minor = sys.argv[1], sys.argv[2], int(sys.argv[3])
inodes, stolen, numbers, uuids = (json.loads(one) for one in sys.argv[4:8])
client = NfsClient(server, source, minor)
roots = inodes[-3:-1]
kept = {"refused": 0, "found": [], "made": [], "foreign": []}

def tried(handle, what, inode):
    found = client.look(handle)
    if found is None:
        kept["refused"] += 1
        return
    kept["found"].append([what, found.kind, found.inode, found.content.decode("latin-1")[:4000]])
    if inode in roots and found.kind == DIRECTORY:
        status = client.make_directory(handle, "made-by-attacker")
        kept["made"].append([what, found.inode, status])

own = {}
for number in numbers:
    try:
        own[number] = client.handle(f"/var/lib/walt/exports/{number}")
    except OSError:
        pass
kept["own"] = sorted(own)
links = client.handle("/var/lib/walt/nodes")
# Handles end with the number and the generation of the inode, of 4 or of 8 and 4 bytes.
for name, handle in [*own.items(), ("links", links)]:
    for inode in inodes:
        tried(handle[:-8] + struct.pack("<II", inode, 0), f"{name} 4", inode)
    for inode in inodes[::50]:
        tried(handle[:-12] + struct.pack("<QI", inode, 0), f"{name} 8", inode)
    for uuid in uuids:
        raw = bytes.fromhex(uuid)
        for start in range(4, len(handle) - 15):
            for inode in inodes[:3] + inodes[-3:]:
                forged = handle[:start] + raw + handle[start + 16:-8]
                tried(forged + struct.pack("<II", inode, 0), f"{name} uuid", inode)
for handle in map(bytes.fromhex, stolen):
    for number in [None, 0, 1, *numbers]:
        mixed = handle if number is None else handle[:2] + struct.pack(">H", number) + handle[4:]
        for one in {mixed, handle[:2] + mixed[3:1:-1] + mixed[4:]}:
            found = client.look(one)
            if found is not None:
                kept["foreign"].append([number, found.kind, found.content.decode("latin-1")])
print(json.dumps(kept))
"""
HANDLES = """
import json, sys
from tests.attacks.nfs_client import NfsClient
client, found = NfsClient(sys.argv[2], sys.argv[1], 0), []
for number in json.loads(sys.argv[3]):
    try:
        found.append(client.handle(f"/var/lib/walt/exports/{number}").hex())
    except OSError:
        pass
print(json.dumps(found))
"""


class HandleTests(TestCase):
    skip = why_not()
    timeout = patient(240)

    async def test_handles(self) -> None:
        """Neither the server's files nor another node's, to read or to write, by 4.0 and 4.1."""
        from twisted.internet import reactor

        platform = self.platform = LivePlatform(reactor)
        self.addCleanup(platform.close)
        await platform.import_image()
        await platform.start()
        victim, attacker = f"{platform.net}.61", f"{platform.net}.62"
        for mac, ip in ((VICTIM, victim), (ATTACKER, attacker)):
            await platform.event("commit", "", "walt.node.pc-x86-64", ip, mac, "", "0", "unknown")
            await platform.begins_to_boot(ip)
            await self.enter("ip", "address", "add", f"{ip}/32", "dev", "lo")
        exports = await platform.until(self.exports(3), "the exports of both nodes")
        numbers = sorted(exports)
        data = platform.state / "nodes" / VICTIM / "persist_dirs" / "waltplatform"
        (data / "data").write_text(SECRET)
        secret = platform.state / "secret"
        secret.write_text(SECRET)
        roots = [Path("/"), platform.state]
        # The last but one are the directories that the attacker tries to write to.
        inodes = [*range(1, INODES + 1), secret.stat().st_ino,
                  *(one.stat().st_ino for one in roots), Path("/etc/passwd").stat().st_ino]
        writable = [one for one in numbers if self.record(one).startswith(f"# rw {victim} ")]
        stolen = await self.python(HANDLES, victim, f"{platform.net}.1", json.dumps(writable))
        self.assertEqual(len(stolen), 1)
        uuids = await self.uuids(roots)
        names = {frozenset(os.listdir(one)) for one in roots}
        for minor in (0, 1):
            found = await self.python(
                ATTACK, attacker, f"{platform.net}.1", str(minor), json.dumps(inodes),
                json.dumps(stolen), json.dumps(numbers), json.dumps(uuids),
            )
            self.assertEqual(len(found["own"]), 2)
            for what, kind, inode, content in found["found"]:
                self.assertNotIn(SECRET, content, (minor, what, kind, inode))
                self.assertNotIn(frozenset(content.split("\n")), names, (minor, what, inode))
                self.assertNotIn("root:x:0:0", content.split("\n")[0], (minor, what, inode))
            self.assertEqual(found["foreign"], [], minor)
            self.assertGreater(found["refused"], INODES)
        # os.walk passes over what vanishes meanwhile, as processes in /proc do.
        made = [where for root in roots for where, directories, files in os.walk(root)
                if "made-by-attacker" in (*directories, *files)
                and "persist_dirs" not in Path(where).parts]
        self.assertEqual(made, [])
        self.assertEqual([path.name for path in data.iterdir()], ["data"])
        services = await platform.services()
        self.assertEqual(
            (services["ganesha"]["state"], services["ganesha"]["restarts"]), ("running", 0)
        )
        self.assertEqual(await platform.stop(), 0)

    def exports(self, count: int) -> Callable[[], Awaitable[list[int]]]:
        """Return what tells the numbers of the exports when there are so many."""
        records = self.platform.state / "services" / "ganesha" / "exports"

        async def numbers() -> list[int]:
            found = [int(one.stem) for one in records.glob("*.conf")]
            return found if len(found) == count else []

        return numbers

    def record(self, number: int) -> str:
        """Return what the server keeps of an export."""
        return (self.platform.state / f"services/ganesha/exports/{number}.conf").read_text()

    async def uuids(self, roots: list[Path]) -> list[str]:
        """Return those of the server's own file systems, as handles have them."""
        found = set()
        for root in roots:
            done = await self.platform.runner.run(
                ["findmnt", "--noheadings", "--output", "UUID", "--target", str(root)],
                check=False,
            )
            found |= set(done.stdout.decode().split())
        return sorted(one.replace("-", "") for one in found)

    async def enter(self, *argv: str) -> bytes:
        """Run a program in the server's namespace; return its output."""
        done = await self.platform.runner.run(
            ["nsenter", f"--net=/run/netns/{self.platform.namespace}", "--", *argv],
            timeout=patient(150), env={"PYTHONPATH": str(ROOT)},
        )
        return done.stdout

    async def python(self, code: str, *argv: str) -> Any:
        """Run code there; return what it prints, as JSON."""
        return json.loads(await self.enter(sys.executable, "-c", code, *argv))
