"""NFS handles that a node makes up or steals, against the kernel's NFS server."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import Any

from twisted.trial.unittest import TestCase

from tests.lab.box import NET, SERVER, Box
from tests.lab.image import ROOT
from tests.lab.installed import installed, why_not
from tests.patience import patient

VICTIM, ATTACKER = "52:54:00:aa:02:01", "52:54:00:aa:02:02"
VICTIM_IP, ATTACKER_IP = f"{NET}.61", f"{NET}.62"
SECRET = "of the server or of another node alone"
INODES = 3000
STATE = "/var/lib/walt"
ENTER = "ip netns exec attacker"
ATTACK = "env PYTHONPATH=/root/attack python3 -m tests.lab.forged_handles"
# Handles of paths, as the victim gets them: argv has its address, the server's, the paths.
HANDLES = """
import json, sys
from tests.attacks.nfs_client import NfsClient
client = NfsClient(sys.argv[2], sys.argv[1], 1)
print(json.dumps([client.handle(one).hex() for one in sys.argv[3:]]))
"""
# What the server's own file system has under numbers of inodes: argv has the highest one.
CENSUS = """
import hashlib, json, os, stat, sys
device, found = os.stat("/").st_dev, {}
def note(path, names=None):
    status = os.lstat(path)
    if status.st_dev != device or status.st_ino > int(sys.argv[1]) and path not in sys.argv[2:]:
        return
    content = b""
    if stat.S_ISREG(status.st_mode):
        content = open(path, "rb").read(65536)
    found[status.st_ino] = {
        "path": path, "names": names, "content": hashlib.sha256(content).hexdigest(),
    }
for where, directories, files in os.walk("/"):
    directories[:] = [one for one in directories
                      if os.lstat(os.path.join(where, one)).st_dev == device]
    note(where, sorted(directories + files))
    for one in files:
        note(os.path.join(where, one))
print(json.dumps(found))
"""


class HandleTests(TestCase):
    skip = why_not()
    timeout = patient(1200)

    async def test_handles(self) -> None:
        """They reach images and the attacker's own /persist, nothing else, by 4.0 and 4.1."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        await self.prepare(box)
        persist = {mac: f"{STATE}/nodes/{mac}/persist_dirs/waltplatform"
                   for mac in (VICTIM, ATTACKER)}
        files = {
            "secret": f"{STATE}/secret", "passwd": "/etc/passwd", "shadow": "/etc/shadow",
            "database": f"{STATE}/postgres/PG_VERSION",
            "persist of the victim": f"{STATE}/nodes/{VICTIM}/volumes/waltplatform.ext4",
            "nodes": f"{STATE}/nodes", "state": STATE,
        }
        for path in (files["secret"], f"{persist[VICTIM]}/data"):
            await box.put(path, SECRET.encode(), "666")
        await box.run("chmod 777 " + persist[VICTIM])
        exports = await box.run("exportfs -s")
        (image,) = {line.split()[0] for line in exports.splitlines() if "/images/" in line}
        told: dict[str, Any] = {
            "source": ATTACKER_IP, "server": SERVER,
            "own": {"image": image, "persist": persist[ATTACKER], "nodes": files["nodes"],
                    "top": "/", "var": "/var", "lib": "/var/lib", "walt": STATE},
            "sample": f"{image}/etc", "foreign": [persist[VICTIM]],
            "inodes": list(range(1, INODES + 1)),
            "marked": await self.numbers(box, "%i", STATE, *files.values()),
            "devices": await self.numbers(box, "%d", "/", image, persist[VICTIM]),
            "uuids": (await box.run(
                "lsblk --noheadings --output UUID | tr -d - | sort -u"
            )).split(),
            "disk": (await box.run(
                f"findmnt --noheadings --first-only --output UUID {persist[ATTACKER]}"
            )).strip().replace("-", ""),
            "stolen": json.loads(await self.enter(
                box, f"env PYTHONPATH=/root/attack python3 -c {shlex.quote(HANDLES)} {VICTIM_IP}"
                f" {SERVER} {persist[VICTIM]} {persist[VICTIM]}/data",
            )),
        }
        self.assertIn(told["disk"], told["uuids"])
        told["inodes"].remove(2)
        census = json.loads(await box.run(
            f"python3 -c {shlex.quote(CENSUS)} {INODES} {' '.join(files.values())}",
            timeout=patient(200),
        ))
        steps = {one for path in told["own"].values() for one in path.split("/")}
        (database,) = await self.numbers(box, "%u", files["database"])
        for minor, account in ((1, 0), (0, 0), (1, database), (1, 65534)):
            told |= {"minor": minor, "account": account}
            if account:
                told["inodes"] = told["inodes"][:200]
            found = json.loads(await self.enter(
                box, ATTACK, stdin=json.dumps(told).encode(), timeout=patient(400)
            ))
            self.assertEqual(found["foreign"], [])
            self.assertEqual(found["made"], [])
            self.assertGreater(found["refused"], len(told["inodes"]))
            leaks = [one for one in found["found"] if leaked(one, census, steps)]
            self.assertEqual(leaks, [], (minor, account))
        made = await box.run(
            f"find / -xdev -name made-by-attacker; find {STATE}/images {persist[VICTIM]}"
            f" -name made-by-attacker; ls {persist[VICTIM]}", timeout=patient(200),
        )
        self.assertEqual(made.split(), ["data"])
        await box.run("systemctl is-active walt-server nfs-server")

    async def prepare(self, box: Box) -> None:
        """Register two nodes whose addresses are those of a namespace in walt-net."""
        commands = [
            "ip netns add attacker", "ip link set eth2 netns attacker",
            f"{ENTER} ip link set lo up", f"{ENTER} ip link set eth2 up",
        ]
        for mac, ip in ((VICTIM, VICTIM_IP), (ATTACKER, ATTACKER_IP)):
            commands += [
                f"{ENTER} ip address add {ip}/24 dev eth2",
                "WALT_RPC_SOCKET=/run/walt/rpc.sock /opt/walt/bin/walt-dhcp-event commit ''"
                f" walt.node.pc-x86-64 {ip} {mac} '' 0 unknown",
            ]
        await box.run(" && ".join(commands), timeout=patient(100))
        for name in ("tests/attacks/nfs_client.py", "tests/lab/forged_handles.py"):
            await box.put(f"/root/attack/{name}", (ROOT / name).read_bytes())

        for ip in (VICTIM_IP, ATTACKER_IP):

            async def begins_to_boot(ip: str = ip) -> bool:
                done = await box.try_to(
                    f"{ENTER} curl --silent --fail --interface {ip} --output /dev/null"
                    f" http://{SERVER}/boot/start.ipxe"
                )
                return done.status == 0

            # It gets its persistent data then.
            await box.until(begins_to_boot, "the boot script is there", patient(60))

        async def exported() -> bool:
            exports = await box.run("exportfs -s")
            return all(exports.count(f" {ip}(") == 2 for ip in (VICTIM_IP, ATTACKER_IP))

        await box.until(exported, "the exports of both nodes", patient(120))

    async def numbers(self, box: Box, form: str, *paths: str) -> list[int]:
        """Return what stat(1) tells of paths."""
        told = await box.run(f"stat --format {form} {' '.join(paths)}")
        return [int(one) for one in told.split()]

    async def enter(self, box: Box, command: str, **options: Any) -> str:
        """Run a command in the attackers' namespace."""
        return await box.run(f"{ENTER} {command}", **options)


def leaked(one: dict[str, Any], census: dict[str, Any], steps: set[str]) -> bool:
    """Tell whether what a handle led to is of the server itself, or of the victim.

    `steps` are the directories on the way to exports, which everybody may see.
    """
    if one["what"].startswith("persist"):
        return False
    if one["content"] == hashlib.sha256(SECRET.encode()).hexdigest() or one["what"] == "stolen":
        return True
    there = census.get(str(one["inode"]))
    if there is None:
        return False
    if one["names"] is None:
        return bool(one["size"]) and one["content"] == there["content"]
    names = set(one["names"]) - {""} - steps
    inside = there["path"].startswith(f"{STATE}/nodes")
    return bool(names) and not inside and names <= set(there["names"] or ())
